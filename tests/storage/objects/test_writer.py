"""How many requests a push takes, what is on its way at once, and what was written but never synced."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from storage.drivers.objects import moving
from storage.drivers.objects.bucket import Listed
from storage.drivers.objects.driver import ObjectDriver
from storage.drivers.objects.handle import Handle
from storage.drivers.objects.names import OBJECTS
from storage.errors import KeyUnknown, StorageUnavailable
from tests.storage.objects.counted import CountingBucket, scale_parts
from tests.waiting import wait_for

KEY, ELSEWHERE = "blobs/ab/abc", "blobs/ab/def"
WAIT_S = 30


class SlowBucket(CountingBucket):
    """Keeps each part waiting until `go`."""

    def __init__(self) -> None:
        super().__init__()
        self.go = threading.Event()
        self.coming = 0

    def put_part(self, name: str, upload: str, number: int, body: object, size: int) -> str:  # type: ignore[override]
        self.coming += 1
        assert self.go.wait(WAIT_S)
        return super().put_part(name, upload, number, body, size)  # type: ignore[arg-type]


class Row:
    def __init__(self, driver: ObjectDriver) -> None:
        self.handle = driver.stage(KEY)

    def __call__(self, handle: str | None = None, /) -> None:
        self.handle = self.handle if handle is None else handle


def written(bucket: CountingBucket, data: bytes) -> tuple[ObjectDriver, Row]:
    """Bytes that a writer wrote, and did not sync."""
    driver = ObjectDriver(bucket)
    row = Row(driver)
    with driver.append(row.handle, at=0, fence=row) as writer:
        writer.write(data)
    return driver, row


def published(bucket: CountingBucket, key: str = KEY) -> bytes:
    assert bucket.begun == {}
    assert list(bucket.objects) == [OBJECTS + key]
    return bucket.objects[OBJECTS + key]


@pytest.mark.parametrize(
    ("size", "requests"),
    [
        (0, {"put": 1, "get": 1}),  # of a record that nobody made
        (4096, {"put": 1}),
        (2**20, {"begin": 1, "put_part": 1}),
        (20 * 2**20, {"begin": 1, "put_part": 3}),
        (16 * 2**20 + 9, {"begin": 1, "put_part": 3}),
    ],
)
def test_a_push_in_one_request_stores_no_byte_twice(size, requests):
    bucket = CountingBucket()
    driver, row = written(bucket, bytes(size))

    driver.publish(row.handle, size=size, fence=row)

    assert published(bucket) == bytes(size)
    assert bucket.calls == requests


class LateBucket(CountingBucket):
    """Says that an upload is completed before it shows the object."""

    def __init__(self) -> None:
        super().__init__()
        self.unseen = 3

    def stat(self, name: str) -> Listed:
        if name.startswith(OBJECTS) and self.unseen:
            self.unseen -= 1
            raise KeyUnknown("not yet", key=name)
        return super().stat(name)


def test_what_a_store_has_completed_is_published_once_it_can_be_seen(monkeypatch):
    monkeypatch.setattr(moving, "_POLL_S", 0.01)
    driver, row = written(bucket := LateBucket(), bytes(9 * 2**20))

    driver.publish(row.handle, size=9 * 2**20, fence=row)

    assert bucket.unseen == 0


def test_what_a_store_never_shows_is_not_published(monkeypatch):
    monkeypatch.setattr(moving, "_SEEN_S", 0.05)
    monkeypatch.setattr(moving, "_POLL_S", 0.01)
    driver, row = written(bucket := LateBucket(), bytes(9 * 2**20))
    bucket.unseen = 10_000

    with pytest.raises(StorageUnavailable, match="does not show"):
        driver.publish(row.handle, size=9 * 2**20, fence=row)


def test_a_pull_is_one_request():
    bucket = CountingBucket()
    bucket.put(OBJECTS + KEY, bytes(range(100)))

    with ObjectDriver(bucket).open(KEY, start=40) as reader:
        assert reader.read() == bytes(range(40, 100))

    assert bucket.calls == {"put": 1, "get": 1}


@pytest.fixture(params=[10, 40], ids=["a few", "parts"])
def data(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bytes:
    scale_parts(monkeypatch, 2**19)  # parts of 16 bytes
    return bytes(range(request.param))


def test_what_was_not_synced_can_be_read_for_its_digest_and_published(data):
    driver, row = written(bucket := CountingBucket(), data)

    with driver.read_staged(row.handle, fence=row) as staged:
        assert staged.read() == data
    driver.publish(row.handle, size=len(data), fence=row)

    assert published(bucket) == data


def test_what_was_not_synced_is_forgotten_with_its_session(data):
    driver, row = written(bucket := CountingBucket(), data)

    driver.discard(row.handle)

    assert (bucket.objects, bucket.begun) == ({}, {})


def test_what_was_not_synced_can_be_begun_again_by_another_node(data):
    _, row = written(bucket := CountingBucket(), data)
    other = ObjectDriver(bucket)

    with other.append(row.handle, at=0, fence=row) as writer:
        writer.write(data[::-1])
        writer.sync()
    other.publish(row.handle, size=len(data), fence=row)
    other.sweep_staged(lambda _keys: set(), older_than_s=-60.0)  # parts of which no record told

    assert published(bucket) == data[::-1]


def test_a_few_bytes_that_were_not_synced_can_be_moved_and_added_to():
    driver, row = written(bucket := CountingBucket(), b"first")

    moved = driver.restage(row.handle, ELSEWHERE, size=5, keep=row)
    driver.discard(row.handle)
    row.handle = moved
    with driver.append(row.handle, at=5, fence=row) as writer:
        writer.write(b" and more")
    driver.publish(row.handle, size=14, fence=row)

    assert published(bucket, ELSEWHERE) == b"first and more"


def test_what_one_writer_left_is_not_lost_to_who_comes_with_the_handle_of_another():
    driver, row = written(bucket := CountingBucket(), b"a few")
    overtaken = str(replace(Handle.parse(row.handle), writer="0" * 16))

    with pytest.raises(KeyUnknown):
        driver.publish(overtaken, size=5)
    driver.publish(row.handle, size=5, fence=row)

    assert published(bucket) == b"a few"


def test_three_parts_are_on_their_way_while_the_next_one_fills(monkeypatch):
    scale_parts(monkeypatch, 2**19)
    bucket = SlowBucket()
    driver = ObjectDriver(bucket)
    row = Row(driver)

    with driver.append(row.handle, at=0, fence=row) as writer:
        writer.write(bytes(3 * 16 + 10))
        wait_for(lambda: bucket.coming == 3, WAIT_S, "three parts at once")
        bucket.go.set()
    driver.publish(row.handle, size=58, fence=row)

    assert published(bucket) == bytes(58)


def test_writing_goes_on_while_a_sync_waits_for_what_was_written_before(monkeypatch):
    scale_parts(monkeypatch, 2**19)
    bucket = SlowBucket()
    driver = ObjectDriver(bucket)
    row = Row(driver)

    with driver.append(row.handle, at=0, fence=row) as writer, ThreadPoolExecutor(1) as pool:
        writer.write(b"a" * 16)
        synced = pool.submit(writer.sync, writer.mark())
        wait_for(lambda: bucket.coming == 1, WAIT_S, "the part to be sent")
        writer.write(b"b" * 20)
        assert not synced.done()
        bucket.go.set()
        synced.result(WAIT_S)
        writer.sync()
        row(writer.handle)
    driver.publish(row.handle, size=36, fence=row)

    assert published(bucket) == b"a" * 16 + b"b" * 20
