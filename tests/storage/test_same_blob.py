"""Several who push the same bytes at once: all of them succeed, and the bytes are stored once."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest
from sqlalchemy import func, select, update

from storage.digest import Digest
from storage.models import DAMAGED, LIVE, Blob, BlobLink, Object
from storage.reference import RepositoryName
from storage.store import Store

PUSHERS = 8
ROUNDS = 10


@pytest.mark.parametrize("is_damaged", [False, True])
def test_pushes_of_one_blob_at_once_all_succeed_and_store_it_once(
    store: Store, name: RepositoryName, is_damaged: bool
) -> None:
    """is_damaged: the bytes that are there have been found wrong, so the name moves to those of a push."""
    names = (name, RepositoryName("team/other"))
    for _ in range(ROUNDS):
        data, gate = os.urandom(4096), Barrier(PUSHERS)
        if is_damaged:
            store.blobs.put(name, data)
            with store.database.write() as session:
                session.execute(update(Object).values(state=DAMAGED))

        def push(number: int, data: bytes = data, gate: Barrier = gate) -> None:
            gate.wait(10)
            store.blobs.put(names[number % 2], data, principal=f"p{number % 3}")

        with ThreadPoolExecutor(PUSHERS) as pool:
            list(pool.map(push, range(PUSHERS)))  # raises what a push raised

        digest = str(Digest.of(data))
        with store.database.read() as session:
            objects = select(func.count(func.distinct(Blob.object_id))).where(Blob.digest == digest)
            assert session.scalar(objects) == 1
            live = select(Object.lease_until).join(Blob).where(Blob.digest == digest, Object.state == LIVE)
            links = select(BlobLink.lease_until).join(Blob).where(Blob.digest == digest)
            assert session.execute(live).scalar_one() >= max(session.scalars(links))
        with store.blobs.open(name, Digest.of(data)) as blob:
            assert blob.read() == data
