"""Bytes that rot are found, served no more, and replaced by the next push."""

from __future__ import annotations

import time

import pytest
from sqlalchemy import update

from storage.digest import Digest
from storage.errors import BlobUnknown
from storage.gc import Swept
from storage.layout import BLOBS
from storage.models import DELETING, BlobLink, Object
from storage.scrub import Problem

DATA = b"weights " * 1000


def rot(store, blob, data=b"x" + DATA[1:]):
    store.driver.local_path(blob.key).write_bytes(data)


def test_good_bytes_are_left_alone(store, name):
    blob = store.blobs.put(name, DATA)

    (checked,) = store.scrubber.run()

    assert (checked.problem, checked.digests, checked.size) == (None, (blob.digest,), len(DATA))
    assert store.blobs.open(name, blob.digest).read() == DATA


@pytest.mark.parametrize("data", [b"x" + DATA[1:], DATA[:-1], DATA + b"x", b""])
def test_damaged_bytes_are_quarantined_and_kept(store, name, data):
    blob = store.blobs.put(name, DATA)
    rot(store, blob, data)

    (checked,) = store.scrubber.run()

    assert checked.problem is Problem.DAMAGED
    with pytest.raises(BlobUnknown):
        store.blobs.stat(name, blob.digest)
    assert store.driver.local_path(blob.key).read_bytes() == data
    assert list(store.scrubber.run()) == []


def test_missing_bytes_are_reported(store, name):
    blob = store.blobs.put(name, DATA)
    store.driver.delete(blob.key)

    (checked,) = store.scrubber.run()

    assert checked.problem is Problem.MISSING
    with pytest.raises(BlobUnknown):
        store.blobs.stat(name, blob.digest)


def test_the_next_push_heals_and_the_sweep_takes_the_damaged_bytes(store, name):
    blob = store.blobs.put(name, DATA)
    rot(store, blob)
    list(store.scrubber.run())

    healed = store.blobs.put(name, DATA)
    with store.database.write() as session:
        session.execute(update(Object).where(Object.storage_key == blob.key).values(lease_until=time.time() - 1))

    assert store.blobs.open(name, Digest.of(DATA)).read() == DATA
    assert store.collector.sweep() == Swept(objects=1, size=len(DATA))
    assert list(store.driver.keys(BLOBS)) == [healed.key]


def test_a_damaged_blob_that_is_still_named_is_never_swept(store, name):
    blob = store.blobs.put(name, DATA)
    rot(store, blob)
    list(store.scrubber.run())

    assert store.collector.sweep() == Swept()
    assert list(store.driver.keys(BLOBS)) == [blob.key]


def test_a_refusing_disk_proves_nothing(store, name, monkeypatch):
    blob = store.blobs.put(name, DATA)

    class Refusing:
        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

        def read(self, size):
            raise OSError(5, "Input/output error")

    monkeypatch.setattr(store.driver, "open", lambda key, start=0: Refusing())
    (checked,) = store.scrubber.run()
    monkeypatch.undo()

    assert checked.problem is Problem.UNREADABLE
    assert store.blobs.open(name, blob.digest).read() == DATA


def test_an_object_swept_meanwhile_is_no_finding(store, name, monkeypatch):
    blob = store.blobs.put(name, DATA)
    open_key = store.driver.open

    def sweep_first(key, start=0):
        with store.database.write() as session:
            session.execute(update(BlobLink).values(lease_until=0))
            session.execute(update(Object).values(lease_until=0, state=DELETING))
        store.driver.delete(blob.key)
        return open_key(key, start=start)

    monkeypatch.setattr(store.driver, "open", sweep_first)

    assert list(store.scrubber.run()) == []


def test_the_rate_is_kept(store, name):
    for number in range(4):
        store.blobs.put(name, bytes([number]) * 100_000)

    started = time.monotonic()
    assert len(list(store.scrubber.run(rate=1_000_000))) == 4

    assert time.monotonic() - started >= 0.39
