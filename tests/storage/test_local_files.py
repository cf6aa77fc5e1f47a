"""Blobs as files to map, over files and over a bucket."""

from __future__ import annotations

import random

import pytest

from storage.digest import Digest
from storage.drivers.objects.driver import ObjectDriver
from storage.drivers.s3 import S3Bucket
from storage.errors import BlobUnknown, StorageFull, StorageUnavailable
from storage.local_copies.copies import CopyLimits, LocalCopies
from storage.local_copies.folder import CopyFolder
from storage.produce import produce_blob
from storage.reference import RepositoryName
from storage.store import Store
from tests.storage.objects.counted import CountingBucket

OTHER = RepositoryName("else/where")
MIB = 2**20


@pytest.fixture
def backend() -> str:
    return "sqlite"


@pytest.fixture
def bucket() -> CountingBucket:
    return CountingBucket()


@pytest.fixture
def folder(tmp_path):
    return CopyFolder(tmp_path / "cache", 3 * MIB)


@pytest.fixture
def node(database, bucket, folder) -> Store:
    return over(database, bucket, folder)


def over(database, bucket, folder) -> Store:
    driver = ObjectDriver(bucket)
    return Store(database, driver, LocalCopies(folder, driver, CopyLimits()))


def test_a_driver_that_keeps_files_gives_its_own(store, name):
    blobs = [store.blobs.put(name, data) for data in (b"one", b"two")]

    with store.files.hold(name, [blob.digest for blob in blobs]) as paths:
        assert paths == [store.driver.local_path(blob.key) for blob in blobs]


def test_what_lies_in_a_bucket_comes_as_copies_in_order(node, name):
    used = []
    node.blobs.told_of_use = lambda *what: used.append(what)
    digests = [node.blobs.put(name, data).digest for data in (b"one", b"two", b"three")]

    with node.files.hold(name, [*digests, digests[0]]) as paths:
        assert [path.read_bytes() for path in paths] == [b"one", b"two", b"three", b"one"]

    assert used == [(name, digest) for digest in [*digests, digests[0]]]


def test_a_copy_serves_nobody_who_has_no_link_to_the_blob(node, name):
    blob = node.blobs.put(name, b"private")
    node.blobs.put(OTHER, b"other")
    with node.files.hold(name, [blob.digest]):
        pass

    with pytest.raises(BlobUnknown), node.files.hold(OTHER, [blob.digest]):
        pass


def test_a_blob_that_was_swept_and_pushed_again_is_read_where_it_is_now(node, name, bucket, monkeypatch):
    old, real = node.blobs.put(name, b"again"), node.blobs.stat
    new_key = f"{old.key[:-4]}beef"
    bucket.objects[f"objects/{new_key}"] = bucket.objects.pop(f"objects/{old.key}")
    answers = iter([real(name, old.digest)])

    def stat(*asked):
        """As the rows were before the sweep, then as they are."""
        found = next(answers, None)
        return found or type(old)(old.digest, old.size, new_key)

    monkeypatch.setattr(node.blobs, "stat", stat)

    with node.files.hold(name, [old.digest]) as (path,):
        assert path.read_bytes() == b"again"


def test_a_model_that_can_never_fit_is_refused_before_any_of_it_is_fetched(node, name, bucket):
    digests = [node.blobs.put(name, bytes([seed]) * MIB).digest for seed in range(4)]

    with pytest.raises(StorageFull, match=r"take 4\.0 MiB, and local copies may take 3\.0 MiB"):
        node.files.hold(name, digests).__enter__()

    assert bucket.calls["get"] == 0


def test_a_process_that_makes_no_copies_says_so(database, bucket, name):
    store = Store(database, ObjectDriver(bucket))
    blob = store.blobs.put(name, b"x")

    with pytest.raises(StorageUnavailable, match="no files"):
        store.files.hold(name, [blob.digest]).__enter__()


def test_tidying_takes_copies_of_blobs_that_are_no_more(node, name, folder):
    kept, gone = (node.blobs.put(name, data).digest for data in (b"kept", b"gone"))
    with node.files.hold(name, [kept, gone]):
        pass
    node.blobs.unlink(name, gone)
    node.collector.sweep()

    assert folder.tidy(node.files.known) == 1

    assert [entry.name for entry in folder.entries()] == [folder.copy_of(kept).name]


def test_digests_that_still_name_a_blob_are_known(node, name):
    digests = {node.blobs.put(name, data).digest for data in (b"one", b"two")}

    assert node.files.known([*digests, Digest.of(b"three")]) == digests
    assert node.files.known([]) == set()


def test_what_a_program_writes_becomes_a_blob_of_the_bucket(node, name, bucket, folder):
    read = []

    def write(path, keep):
        path.write_bytes(b"made here" * 200_000)
        keep()

    blob = produce_blob(node, name, write, hashed=read.append)

    assert blob.digest == Digest.of(b"made here" * 200_000)
    with node.blobs.open(name, blob.digest) as reader:
        assert reader.read() == b"made here" * 200_000
    assert read[-1] == blob.size
    assert list(folder.path.iterdir()) == []


def test_nothing_is_left_of_a_program_that_fails(node, name, bucket, folder):
    def write(path, keep):
        path.write_bytes(b"half")
        raise ValueError

    with pytest.raises(ValueError):
        produce_blob(node, name, write)

    assert list(folder.path.iterdir()) == []
    assert not bucket.objects
    assert node.uploads.expire(idle_s=-1) == 0


def test_a_real_bucket_gives_the_same_bytes(database, s3_bucket: S3Bucket, name, tmp_path):
    data = random.Random(5).randbytes(41 * MIB)
    node = over(database, s3_bucket, CopyFolder(tmp_path / "cache"))
    blob = produce_blob(node, name, lambda path, keep: path.write_bytes(data) and None)

    with node.files.hold(name, [blob.digest]) as (path,):
        assert path.read_bytes() == data
