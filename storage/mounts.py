"""Many blobs of one repository linked into another at once: what a model that is copied or derived is made of."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Final

from sqlalchemy import Connection, bindparam, select

from storage.blobs import link
from storage.db import Database
from storage.digest import Digest
from storage.models import LIVE, Blob, BlobLink, Object, Repository
from storage.namespaces import ensure_repository
from storage.reference import RepositoryName
from storage.retry import retried

_BATCH: Final = 1000  # digests in one statement

_HELD: Final = (
    select(Blob.id, Object.id)
    .join_from(Repository, BlobLink, BlobLink.repository_id == Repository.id)
    .join(Blob, Blob.id == BlobLink.blob_id)
    .join(Object, Object.id == Blob.object_id)
    .where(Repository.name == bindparam("name"), Blob.digest.in_(bindparam("digests", expanding=True)))
    .where(Object.state == LIVE)
    .order_by(Object.id)
    .with_for_update(of=Object)
)


@retried
def mount_all(
    database: Database,
    digests: Collection[Digest],
    *,
    source: RepositoryName,
    into: RepositoryName,
    principal: str | None = None,
) -> None:
    """Link each blob that `source` holds into another repository, with a new lease, in one transaction.

    What `source` does not hold is left out: the manifest that lists it will be refused.
    """
    with database.begin() as connection:
        repository_id = ensure_repository(connection, into)  # before the objects, in the order of a manifest's push
        for blob_id, object_id in _held(connection, source, digests):
            link(connection, repository_id, blob_id, object_id, principal)


def _held(connection: Connection, name: RepositoryName, digests: Collection[Digest]) -> Iterator[tuple[int, int]]:
    """Blob and object of those digests that the repository holds; the transaction holds the objects."""
    texts = sorted({str(digest) for digest in digests})
    for start in range(0, len(texts), _BATCH):
        batch = {"name": str(name), "digests": texts[start : start + _BATCH]}
        yield from ((row[0], row[1]) for row in connection.execute(_HELD, batch).all())
