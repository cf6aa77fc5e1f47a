"""Writers that stand still and wake up late, answers that get lost, and readers whose connection is cut."""

from __future__ import annotations

import io
from collections.abc import Callable
from contextlib import suppress

import pytest

from storage.drivers.objects import driver as driver_module
from storage.drivers.objects.driver import ObjectDriver
from storage.drivers.objects.names import OBJECTS
from storage.drivers.objects.reader import ObjectReader
from storage.errors import KeyUnknown, StagedBusy, StorageUnavailable, UploadBusy
from tests.storage.objects.counted import CountingBucket, scale_parts

KEY, ELSEWHERE = "blobs/ab/abc", "blobs/ab/def"
OLD, NEW = b"o" * 16, b"n" * 16


class Row:
    """A session's row. What a writer holds of it is good until another one takes it."""

    def __init__(self, handle: str) -> None:
        self.handle, self._claims = handle, 0

    def claim(self) -> Callable[..., None]:
        self._claims += 1
        mine = self._claims

        def fence(handle: str | None = None, /) -> None:
            if self._claims != mine:
                raise UploadBusy("another request took over the upload")
            self.handle = self.handle if handle is None else handle

        return fence


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> CountingBucket:
    scale_parts(monkeypatch, 2**19)  # parts of 16 bytes
    return CountingBucket()


@pytest.fixture
def driver(bucket: CountingBucket) -> ObjectDriver:
    return ObjectDriver(bucket)


@pytest.fixture
def row(driver: ObjectDriver) -> Row:
    """Forty bytes: two parts and a piece."""
    row = Row(driver.stage(KEY))
    fence = row.claim()
    with driver.append(row.handle, at=0, fence=fence) as writer:
        writer.write(b"a" * 40)
        writer.sync()
        fence(writer.handle)
    return row


def test_parts_of_a_writer_that_wakes_up_late_are_not_those_of_its_successor(driver, bucket, row):
    late = driver.append(row.handle, at=40, fence=row.claim())
    sleeper = late.__enter__()
    sleeper.write(OLD)  # a part of its own is on its way, with numbers reserved for more
    fence = row.claim()
    with driver.append(row.handle, at=40, fence=fence) as writer:
        writer.write(NEW)
        sleeper.write(OLD * 4)
        writer.write(NEW)
    with pytest.raises(UploadBusy):
        sleeper.write(OLD * 20)  # no number is left

    driver.publish(row.handle, size=72, fence=fence)
    with pytest.raises(UploadBusy):
        late.__exit__(None, None, None)

    assert bucket.objects[OBJECTS + KEY] == b"a" * 40 + NEW + NEW


def test_a_writer_that_was_overtaken_leaves_the_pieces_of_its_successor(driver, bucket, row):
    late = driver.append(row.handle, at=40, fence=row.claim())
    sleeper = late.__enter__()
    sleeper.write(OLD)
    fence = row.claim()
    with driver.append(row.handle, at=40, fence=fence) as writer:
        for _ in range(4):
            with suppress(UploadBusy):
                sleeper.write(OLD)
                sleeper.sync()
        writer.write(NEW)
    with pytest.raises(UploadBusy):
        late.__exit__(None, None, None)

    driver.publish(row.handle, size=56, fence=fence)

    assert bucket.objects[OBJECTS + KEY] == b"a" * 40 + NEW


def test_a_publishing_that_did_not_end_leaves_the_key_to_itself(driver, bucket, row):
    bucket.answers_lost = 1
    with pytest.raises(StorageUnavailable):
        driver.publish(row.handle, size=40, fence=row.claim())

    with pytest.raises(StagedBusy), driver.append(row.handle, at=40, fence=row.claim()):
        pass
    with pytest.raises(StagedBusy):
        driver.publish(row.handle, size=33, fence=row.claim())

    moved = driver.restage(row.handle, ELSEWHERE, size=33, keep=row.claim())
    driver.publish(moved, size=33, fence=row.claim())
    assert bucket.objects[OBJECTS + ELSEWHERE] == b"a" * 33


@pytest.mark.parametrize("size", [0, 3, 40])
def test_a_publishing_whose_answer_was_lost_succeeds_the_second_time(driver, bucket, size):
    row = Row(driver.stage(KEY))
    with driver.append(row.handle, at=0, fence=row.claim()) as writer:
        writer.write(b"b" * size)
    bucket.answers_lost = 1

    with pytest.raises(StorageUnavailable):
        driver.publish(row.handle, size=size, fence=row.claim())
    ObjectDriver(bucket).publish(row.handle, size=size, fence=row.claim())

    assert bucket.objects == {OBJECTS + KEY: b"b" * size}
    assert bucket.begun == {}


def test_parts_that_cannot_be_read_yet_are_unknown_to_who_may_not_publish_them(driver, row):
    with pytest.raises(KeyUnknown):
        driver.read_staged(row.handle)

    with driver.read_staged(row.handle, fence=row.claim()) as staged:
        assert staged.read() == b"a" * 40


def test_a_part_that_was_refused_is_followed_by_nothing(driver, bucket, row, monkeypatch):
    def refuse(*_arguments: object) -> str:
        raise StorageUnavailable("SlowDown")

    with (
        pytest.raises(StorageUnavailable),
        monkeypatch.context() as patch,
        driver.append(row.handle, at=40, fence=row.claim()) as writer,
    ):
        patch.setattr(bucket, "put_part", refuse)
        writer.write(OLD)
        with pytest.raises(StorageUnavailable):
            writer.sync()
        writer.sync()

    fence = row.claim()
    with driver.append(row.handle, at=40, fence=fence) as writer:
        writer.write(NEW)
    driver.publish(row.handle, size=56, fence=fence)
    assert bucket.objects[OBJECTS + KEY] == b"a" * 40 + NEW


class Killed(BaseException):
    """The writer writes no more, and tidies nothing up."""


def test_a_session_goes_on_from_a_mark_though_the_part_that_it_is_in_has_gone(driver, bucket):
    row = Row(driver.stage(KEY))
    fence = row.claim()
    with pytest.raises(Killed), driver.append(row.handle, at=0, fence=fence) as writer:
        writer.write(b"a" * 20)
        mark = writer.mark()
        writer.write(OLD)
        writer.sync(mark)
        fence(writer.handle)
        raise Killed

    fence = row.claim()
    with driver.append(row.handle, at=mark, fence=fence) as writer:
        writer.write(NEW)
    driver.publish(row.handle, size=36, fence=fence)

    assert bucket.objects[OBJECTS + KEY] == b"a" * 20 + NEW


def test_a_session_steps_back_past_a_checkpoint_that_its_row_was_not_told_of(driver, bucket):
    row = Row(driver.stage(KEY))
    fence = row.claim()
    with pytest.raises(Killed), driver.append(row.handle, at=0, fence=fence) as writer:
        writer.write(b"a" * 13)
        writer.sync()
        fence(writer.handle)  # the row tells of 13
        for _ in range(2):  # the checkpoint, and what ends a body that broke off
            writer.write(OLD)
            writer.sync()
        raise Killed

    fence = row.claim()
    with driver.append(row.handle, at=13, fence=fence) as writer:
        writer.write(NEW)
    driver.publish(row.handle, size=29, fence=fence)

    assert bucket.objects[OBJECTS + KEY] == b"a" * 13 + NEW


def test_a_session_goes_on_whose_row_was_written_though_the_answer_was_lost(driver, bucket, row):
    fence = row.claim()

    def lose_the_answer(handle: str | None = None, /) -> None:
        fence(handle)
        raise StorageUnavailable("the database does not answer")

    with pytest.raises(StorageUnavailable), driver.append(row.handle, at=40, fence=lose_the_answer):
        pass

    fence = row.claim()
    with driver.append(row.handle, at=40, fence=fence) as writer:
        writer.write(NEW)
    driver.publish(row.handle, size=56, fence=fence)
    assert bucket.objects[OBJECTS + KEY] == b"a" * 40 + NEW


def test_a_writer_without_a_thread_for_its_part_tells_of_no_gap(driver, bucket, row, monkeypatch):
    monkeypatch.setattr(driver_module, "_BLOCKS", 1)
    driver, fence = ObjectDriver(bucket), row.claim()

    def refuse(*_: object) -> None:
        raise RuntimeError("can't start new thread")

    with pytest.raises(StorageUnavailable), driver.append(row.handle, at=40, fence=fence) as writer:
        monkeypatch.setattr(writer._pool, "submit", refuse)
        with pytest.raises(RuntimeError):
            writer.write(OLD)
        writer.sync()

    fence = row.claim()
    with driver.append(row.handle, at=40, fence=fence) as writer:  # the one block has come back
        writer.write(NEW)
    driver.publish(row.handle, size=56, fence=fence)
    assert bucket.objects[OBJECTS + KEY] == b"a" * 40 + NEW


def test_a_reader_refuses_an_object_that_has_changed(bucket):
    bucket.put("objects/key", b"0123456789")
    reader = ObjectReader(bucket, "objects/key", start=0)
    assert reader.read(4) == b"0123"
    reader.seek(2)
    bucket.put("objects/key", b"01234567")

    with pytest.raises(StorageUnavailable):
        reader.read(4)


def test_a_reader_goes_on_where_an_answer_was_cut(bucket):
    bucket.put("x", bytes(range(100)))
    bucket.cut_after = 30

    with ObjectReader(bucket, "x", start=5) as reader:
        assert reader.read() == bytes(range(5, 100))

    assert bucket.calls["get"] == 4


def test_a_reader_gives_up_where_no_byte_comes(bucket):
    bucket.put("x", bytes(100))
    bucket.cut_after = 0

    with ObjectReader(bucket, "x", start=0) as reader, pytest.raises(StorageUnavailable):
        reader.read()

    assert bucket.calls["get"] == 4


def test_a_reader_of_what_was_deleted_says_so(bucket):
    bucket.put("x", bytes(100))
    bucket.cut_after = 10

    with ObjectReader(bucket, "x", start=0) as reader, pytest.raises(StorageUnavailable, match="deleted"):
        reader.read(10)
        bucket.delete("x")
        reader.read(10)


def test_orphans_are_swept_and_sessions_are_not(driver, bucket, row):
    other = driver.append(driver.stage(ELSEWHERE), at=0)
    with other as writer:
        writer.write(b"orphan" * 10)

    assert driver.sweep_staged(set, older_than_s=-60.0) == 0
    assert driver.sweep_staged(lambda keys: set(), older_than_s=60.0) == 0
    assert driver.sweep_staged(lambda keys: {KEY} & set(keys), older_than_s=-60.0) > 0

    driver.publish(row.handle, size=40, fence=row.claim())
    assert bucket.objects == {OBJECTS + KEY: b"a" * 40}
    assert bucket.begun == {}


def test_a_source_that_breaks_late_leaves_no_parts(driver, bucket):
    class Breaks(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            if not (data := super().read(size)):
                raise ConnectionResetError
            return data

    with pytest.raises(ConnectionResetError):
        driver.write(KEY, Breaks(bytes(50)))

    assert bucket.objects == {}
    assert bucket.begun == {}
