"""Blobs that this server makes itself."""

from __future__ import annotations

import errno

import pytest

from storage.digest import Digest
from storage.drivers.memory import MemoryDriver
from storage.errors import StorageFull, StorageUnavailable
from storage.produce import produce_blob
from storage.store import Store


def test_what_was_written_is_a_blob_and_the_file_itself_is_kept(store, name, tmp_path):
    inodes = []

    def write(path, keep):
        path.write_bytes(b"made here" * 200_000)
        inodes.append(path.stat().st_ino)
        keep()

    blob = produce_blob(store, name, write, principal="somebody")

    assert blob.digest == Digest.of(b"made here" * 200_000)
    assert store.blobs.stat(name, blob.digest).size == blob.size == 9 * 200_000
    path = store.blobs.local_path(name, blob.digest)
    assert path is not None and path.stat().st_ino == inodes[0]
    store.collector.sweep()
    assert store.blobs.stat(name, blob.digest)


def test_a_file_that_is_put_in_place_by_a_rename_counts(store, name, tmp_path):
    def write(path, keep):
        other = path.with_name(path.name + ".part")
        other.write_bytes(b"renamed")
        other.rename(path)

    assert produce_blob(store, name, write).digest == Digest.of(b"renamed")


def test_bytes_that_are_here_already_are_kept_once(store, name):
    store.blobs.put(name, b"twice")

    produce_blob(store, name, lambda path, keep: path.write_bytes(b"twice") and None)

    assert len(list(store.driver.keys(""))) == 1


class Broken(Exception):
    pass


@pytest.mark.parametrize("is_begun", [False, True])
def test_nothing_is_left_of_a_writer_that_fails(store, name, tmp_path, is_begun):
    def write(path, keep):
        if is_begun:
            path.write_bytes(b"half")
        raise Broken

    with pytest.raises(Broken):
        produce_blob(store, name, write)

    assert not [each for each in (tmp_path / "data").rglob("*") if each.is_file()]
    assert store.uploads.expire(idle_s=-1) == 0


def test_a_full_disk_is_said_to_be_full_and_nothing_is_left(store, name, tmp_path):
    def write(path, keep):
        path.write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(StorageFull):
        produce_blob(store, name, write)

    assert not [each for each in (tmp_path / "data").rglob("*") if each.is_file()]


def test_a_driver_without_files_refuses_before_anything_is_written(database, name):
    store = Store(database, MemoryDriver())

    with pytest.raises(StorageUnavailable):
        produce_blob(store, name, lambda path, keep: pytest.fail("there is no path"))
