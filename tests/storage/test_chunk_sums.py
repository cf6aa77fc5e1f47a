"""Sums of a blob's chunks: made once, kept with the bytes, gone with them."""

from __future__ import annotations

import os

import pytest
from sqlalchemy import func, select

from storage import chunk_sums
from storage.chunk_sums import Chunk
from storage.digest import Digest
from storage.errors import StorageUnavailable
from storage.models import ChunkSums as Row

CHUNK = 1000
DATA = os.urandom(2 * CHUNK + 1)
CHUNKS = [
    Chunk(Digest.of(DATA[:CHUNK]), 0, 999),
    Chunk(Digest.of(DATA[CHUNK : 2 * CHUNK]), 1000, 1999),
    Chunk(Digest.of(DATA[-1:]), 2000, 2000),
]


@pytest.fixture(autouse=True)
def _small_chunks(monkeypatch):
    monkeypatch.setattr(chunk_sums, "CHUNK_BYTES", CHUNK)


@pytest.fixture
def blob(store, name):
    return store.blobs.put(name, DATA)


def kept_rows(store) -> int:
    with store.database.connect() as connection:
        return connection.execute(select(func.count()).select_from(Row)).scalar_one()


def test_chunks_follow_each_other_and_are_kept_when_all_are_known(store, name, blob):
    chunks = store.chunk_sums.make(name, blob)
    first = [next(chunks), next(chunks)]
    assert store.chunk_sums.kept(blob) is None

    assert [*first, *chunks] == CHUNKS

    assert list(store.chunk_sums.kept(blob)) == CHUNKS


def test_what_was_kept_under_another_size_of_chunks_stays_right(store, name, blob, monkeypatch):
    list(store.chunk_sums.make(name, blob))
    monkeypatch.setattr(chunk_sums, "CHUNK_BYTES", 7)

    assert list(store.chunk_sums.kept(blob)) == CHUNKS


def test_two_that_are_asked_for_at_once_are_kept_once(store, name, blob):
    several = [store.chunk_sums.make(name, blob) for _ in range(2)]

    assert list(map(list, zip(*several, strict=True))) == [[each] * 2 for each in CHUNKS]
    assert kept_rows(store) == 1


def test_who_stops_early_leaves_nothing(store, name, blob):
    chunks = store.chunk_sums.make(name, blob)
    next(chunks)

    chunks.close()

    assert kept_rows(store) == 0


def test_a_blob_of_no_bytes_has_no_chunks(store, name):
    blob = store.blobs.put(name, b"")

    assert list(store.chunk_sums.make(name, blob)) == []


def test_sums_go_with_the_bytes_they_are_of(store, name, blob):
    list(store.chunk_sums.make(name, blob))
    store.blobs.unlink(name, blob.digest)

    assert store.collector.sweep().objects == 1

    assert kept_rows(store) == 0


def test_sums_of_bytes_that_went_meanwhile_are_not_kept(store, name, blob):
    chunks = store.chunk_sums.make(name, blob)
    next(chunks)
    store.blobs.unlink(name, blob.digest)
    store.collector.sweep()

    assert list(chunks) == CHUNKS[1:]

    assert kept_rows(store) == 0


def test_bytes_that_are_fewer_than_they_were_have_no_sums(store, name, blob):
    os.truncate(store.blobs.local_path(name, blob.digest), 1500)

    with pytest.raises(StorageUnavailable):
        list(store.chunk_sums.make(name, blob))

    assert kept_rows(store) == 0
