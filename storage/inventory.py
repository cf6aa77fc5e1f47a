"""What blobs a store holds, by digest: for whoever carries models to it and wants to leave those at home."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from sqlalchemy import exists, select

from storage.db import Database
from storage.digest import Digest
from storage.models import LIVE, Blob, BlobLink, Object, Repository
from storage.reference import HOLDING

_PAGE: Final = 1000


def held_digests(database: Database, *, page_size: int = _PAGE) -> Iterator[Digest]:
    """Every blob that a repository holds, in the order of their digests, a page in memory at a time.

    What only waits for a repository, or for the next sweep, is left out: a model could not be made of it.
    """
    linked = exists().where(
        BlobLink.blob_id == Blob.id,
        BlobLink.repository_id == Repository.id,
        ~Repository.name.startswith(f"{HOLDING}/", autoescape=True),
    )
    query = select(Blob.digest).join(Object, Object.id == Blob.object_id).where(Object.state == LIVE, linked)
    query = query.order_by(Blob.digest).limit(page_size)
    last = ""
    while True:  # each page begins after the one before, and ends with the rows
        with database.connect() as connection:
            page = list(connection.execute(query.where(Blob.digest > last)).scalars())
        yield from map(Digest.parse, page)
        if len(page) < page_size:
            return
        last = page[-1]
