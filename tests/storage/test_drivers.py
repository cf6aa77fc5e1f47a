"""The contract of every driver."""

from __future__ import annotations

import errno
import io
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from storage import layout
from storage.drivers.filesystem import FilesystemDriver
from storage.drivers.protocol import Driver, StagedWriter
from storage.errors import KeyUnknown, StagedBusy, StorageFull

KEY = "blobs/ab/abc"
ELSEWHERE = "blobs/ab/def"


@pytest.fixture
def driver(any_driver: Driver) -> Driver:
    return any_driver


def read(driver: Driver, key: str, start: int = 0) -> bytes:
    with driver.open(key, start=start) as reader:
        return reader.read()


class Row:
    """What a session's row keeps of staged bytes. Called as a `Fence`."""

    def __init__(self, driver: Driver, key: str = KEY) -> None:
        self._driver = driver
        self.handle, self.key = driver.stage(key), key

    def __call__(self, handle: str | None = None, /) -> None:
        self.handle = self.handle if handle is None else handle

    @contextmanager
    def append(self, at: int) -> Iterator[StagedWriter]:
        with self._driver.append(self.handle, at=at, fence=self) as writer:
            yield writer

    def publish(self, size: int) -> None:
        self._driver.publish(self.handle, size=size, fence=self)

    def move(self, key: str, size: int) -> None:
        """As who finds the bytes in the hands of another."""
        handle = self._driver.restage(self.handle, key, size=size, keep=self)
        self._driver.discard(self.handle)
        self.handle, self.key = handle, key


def stage(driver: Driver, *pieces: bytes) -> Row:
    row, at = Row(driver), 0
    for piece in pieces:
        with row.append(at) as writer:
            writer.write(piece)
            writer.sync()
        at += len(piece)
    return row


@pytest.mark.parametrize("data", [b"", b"x", os.urandom(3 * 2**20 + 1)], ids=["empty", "one", "large"])
def test_what_was_written_is_read(driver, data):
    assert driver.write(KEY, io.BytesIO(data)) == len(data)

    assert read(driver, KEY) == data
    assert driver.stat(KEY) == len(data)


def test_a_reader_begins_where_it_is_told(driver):
    driver.write(KEY, io.BytesIO(b"0123456789"))

    assert read(driver, KEY, start=7) == b"789"
    assert read(driver, KEY, start=10) == b""


def test_a_reader_steps_to_where_it_is_told(driver):
    driver.write(KEY, io.BytesIO(b"0123456789"))

    with driver.open(KEY, start=3) as reader:
        assert reader.read(2) == b"34"
        assert reader.seek(1) == 1
        assert reader.read(3) == b"123"
        assert reader.seek(-2, io.SEEK_END) == 8
        assert (reader.read(), reader.tell()) == (b"89", 10)


def test_writing_again_replaces_the_whole(driver):
    driver.write(KEY, io.BytesIO(b"long before"))
    driver.write(KEY, io.BytesIO(b"short"))

    assert read(driver, KEY) == b"short"


class Broken(io.RawIOBase):
    def read(self, size: int = -1) -> bytes:
        raise ConnectionResetError


def test_a_source_that_breaks_leaves_what_was_there(driver):
    driver.write(KEY, io.BytesIO(b"before"))

    with pytest.raises(ConnectionResetError):
        driver.write(KEY, Broken())

    assert read(driver, KEY) == b"before"
    assert list(driver.keys("")) == [KEY]


@pytest.mark.parametrize("call", ["open", "stat", "changed_at", "local_path", "read_staged"])
def test_an_unknown_key_is_unknown(driver, call):
    with pytest.raises(KeyUnknown):
        getattr(driver, call)(KEY)


@pytest.mark.parametrize(
    "key", ["", "/", "../x", "a/../b", "/etc/passwd", "a//b", "A", "a.b", "a/", "a\0b", "a" * 201, "é", "a\n"]
)
def test_what_is_no_key_is_never_a_place(driver, key):
    for call in (driver.open, driver.stat, driver.delete, driver.stage, driver.discard):
        with pytest.raises(KeyUnknown):
            call(key)
    with pytest.raises(KeyUnknown):
        driver.write(key, io.BytesIO(b"x"))


def test_a_deleted_key_is_gone_and_may_be_deleted_again(driver):
    driver.write(KEY, io.BytesIO(b"x"))

    driver.delete(KEY)
    driver.delete(KEY)

    with pytest.raises(KeyUnknown):
        driver.stat(KEY)


def test_keys_come_in_byte_order(driver):
    keys = ["a", "a-b", "a/b", "a/b-c", "a/b/c", "a0", "b/0", "b_"]
    for key in ["a-b", "a/b-c", "a0", "b_"]:
        driver.write(key, io.BytesIO(b""))
    for key in ["b/0", "a/c/d"]:
        driver.write(key, io.BytesIO(b""))

    assert list(driver.keys("")) == sorted(["a-b", "a/b-c", "a0", "b_", "b/0", "a/c/d"])
    assert list(driver.keys("a/")) == ["a/b-c", "a/c/d"]
    assert list(driver.keys("zzz")) == []
    assert sorted(keys) == keys


def test_staged_bytes_are_published_whole(driver):
    row = stage(driver, b"abc", b"defg")
    assert list(driver.keys("")) == []

    row.publish(7)

    assert read(driver, KEY) == b"abcdefg"


def test_nothing_can_be_published_too(driver):
    Row(driver).publish(0)

    assert driver.stat(KEY) == 0


def test_publishing_again_is_harmless(driver):
    row = stage(driver, b"abc")

    row.publish(3)
    row.publish(3)

    assert read(driver, KEY) == b"abc"


def test_publishing_leaves_out_bytes_beyond_the_size(driver):
    row = stage(driver, b"abcdef")

    row.publish(4)

    assert read(driver, KEY) == b"abcd"


def test_publishing_more_than_was_kept_is_refused(driver):
    row = stage(driver, b"abc")

    with pytest.raises(KeyUnknown):
        row.publish(4)


def test_appending_forgets_what_lies_beyond_its_start(driver):
    row = stage(driver, b"abcdef")

    with row.append(2) as writer:
        writer.write(b"XY")
        writer.sync()

    with driver.read_staged(row.handle, fence=row) as staged:
        assert staged.read() == b"abXY"


def test_appending_past_the_end_is_refused(driver):
    row = stage(driver, b"abc")

    with pytest.raises(KeyUnknown), row.append(4):
        pass


def test_published_bytes_are_taken_back_by_an_append(driver):
    row = stage(driver, b"abc")
    row.publish(3)

    try:
        with row.append(3) as writer:
            writer.write(b"d")
    except StagedBusy:
        row.move(ELSEWHERE, 3)
        with row.append(3) as writer:
            writer.write(b"d")

    assert list(driver.keys("")) == []
    row.publish(4)
    assert read(driver, row.key) == b"abcd"


@pytest.mark.parametrize("is_published", [False, True])
def test_staged_bytes_move_to_another_key(driver, is_published):
    row = stage(driver, b"abc", b"def")
    if is_published:
        row.publish(6)

    row.move(ELSEWHERE, 5)

    assert list(driver.keys("")) == []
    row.publish(5)
    assert read(driver, ELSEWHERE) == b"abcde"
    assert list(driver.keys("")) == [ELSEWHERE]


def test_a_fence_that_raises_leaves_everything_as_it_was(driver):
    def lost(handle: str | None = None, /) -> None:
        raise StagedBusy("lost")

    row = stage(driver, b"abc")

    with pytest.raises(StagedBusy), driver.append(row.handle, at=1, fence=lost):
        pass
    with pytest.raises(StagedBusy):
        driver.publish(row.handle, size=3, fence=lost)

    assert list(driver.keys("")) == []
    with driver.read_staged(row.handle, fence=row) as staged:
        assert staged.read() == b"abc"


def test_bytes_tell_when_they_came_or_nothing_does(driver):
    driver.write(KEY, io.BytesIO(b"x"))

    changed_at = driver.changed_at(KEY)

    assert changed_at is None or abs(changed_at - time.time()) < 3600


@pytest.mark.parametrize("is_published", [False, True])
def test_discarded_bytes_are_gone(driver, is_published):
    row = stage(driver, b"abc")
    handles = {row.handle}
    if is_published:
        row.publish(3)
        handles.add(row.handle)

    driver.discard(row.handle)
    driver.discard(row.handle)

    assert list(driver.keys("")) == []
    for handle in handles:
        with pytest.raises((KeyUnknown, StagedBusy)), driver.append(handle, at=3):
            pass
        with pytest.raises(KeyUnknown):
            driver.publish(handle, size=3)


def test_a_new_key_was_never_used_before():
    assert all(layout.is_key(layout.new_blob_key()) for _ in range(100))
    assert len({layout.new_blob_key() for _ in range(100)}) == 100


def test_a_file_can_be_sent_and_mapped_by_the_kernel(tmp_path: Path):
    driver = FilesystemDriver(tmp_path)
    driver.write(KEY, io.BytesIO(b"0123"))

    with driver.open(KEY, start=2) as reader:
        assert os.lseek(reader.fileno(), 0, os.SEEK_CUR) == 2
    path = driver.local_path(KEY)
    assert path is not None
    assert path.read_bytes() == b"0123"


def test_another_process_goes_on_with_a_handle(tmp_path: Path):
    handle = stage(FilesystemDriver(tmp_path), b"abc").handle
    other = FilesystemDriver(tmp_path)

    with other.append(handle, at=3) as writer:
        writer.write(b"def")
    other.publish(handle, size=6)

    assert read(FilesystemDriver(tmp_path), KEY) == b"abcdef"


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_says_so_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int):
    driver = FilesystemDriver(tmp_path)

    def refuse(_descriptor: int) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(StorageFull):
        driver.write(KEY, io.BytesIO(b"x"))

    assert list(driver.keys("")) == []
    assert list((tmp_path / "uploads").iterdir()) == []
