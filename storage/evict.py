"""Giving up blobs that can be had again: those that only certain repositories have.

A blob that any other repository links, or that a manifest there lists, is not theirs to give up. As with every sweep,
what was found is looked at again inside the transaction that acts on it, holding the object; nothing is waited for, so
that eviction stands in nobody's way.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from sqlalchemy import ColumnElement, ColumnExpressionArgument, and_, delete, exists, func, or_, select, update
from sqlalchemy.orm import Session

from storage.blobs import lock, settle
from storage.db import Database
from storage.digest import Digest
from storage.gc import Collector
from storage.models import DELETING, LIVE, Blob, BlobLink, Manifest, ManifestBlob, ManifestChild, Object
from storage.namespaces import require_repository
from storage.reference import RepositoryName
from storage.retry import retried

Belongs = Callable[[ColumnExpressionArgument[int]], ColumnElement[bool]]  # the id of a repository → is it one of those?


class Evictor:
    """Takes blobs out of the repositories that `belongs` tells of; it is asked anew each time."""

    def __init__(self, database: Database, collector: Collector, belongs: Belongs) -> None:
        self._database, self._collector, self._belongs = database, collector, belongs

    def size(self) -> int:
        """Bytes of all that could be given up, whether or not a lease runs."""
        query = select(func.coalesce(func.sum(Object.size), 0)).where(self.is_theirs)
        with self._database.connect() as connection:
            return int(connection.execute(query).scalar_one())

    @property
    def is_theirs(self) -> ColumnElement[bool]:
        """Of an `Object`: it is live, and only these repositories have to do with it, by any of its names."""
        linked = exists().where(Blob.object_id == Object.id, BlobLink.blob_id == Blob.id)
        listed = exists().where(Blob.object_id == Object.id, ManifestBlob.blob_id == Blob.id)
        elsewhere = [linked.where(~self._belongs(BlobLink.repository_id))]
        for table in (ManifestBlob, ManifestChild):
            named = exists().where(Blob.object_id == Object.id, table.digest == Blob.digest)
            elsewhere.append(named.where(Manifest.id == table.manifest_id, ~self._belongs(Manifest.repository_id)))
        here = or_(linked.correlate(Object), listed.correlate(Object))
        return and_(Object.state == LIVE, here, ~or_(*(each.correlate(Object) for each in elsewhere)))

    @property
    def may_go(self) -> ColumnElement[bool]:
        """`is_theirs`, and no lease runs: nobody is bringing it, or is about to use it."""
        return and_(self.is_theirs, Object.lease_until < time.time())

    def evict(self, object_id: int) -> int:
        """Unlink the object's blobs and remove its bytes; how many are free now.

        0 where it is needed after all, in somebody's hands, or gone: what was counted before is then out of date. Who
        reads the bytes reads on; the manifests that list them know from now on that they are not here.
        """
        return self._collector.remove(object_id).size if self._give_up(object_id) else 0

    @retried
    def _give_up(self, object_id: int) -> bool:
        """Unlink the blobs and mark the object, which nothing names then: a crash leaves it to the next sweep."""
        with self._database.write() as session:
            blob_ids = _held_names(session, object_id)
            fit = select(Object.id).where(Object.id == object_id, self.may_go)
            if not blob_ids or session.execute(fit).first() is None or not _hold_lists(session, blob_ids):
                return False
            for change in (
                delete(BlobLink).where(BlobLink.blob_id.in_(blob_ids)),
                update(ManifestBlob).where(ManifestBlob.blob_id.in_(blob_ids)).values(blob_id=None),
                update(Object).where(Object.id == object_id).values(state=DELETING, lease_until=0.0),
            ):
                session.execute(change.execution_options(synchronize_session=False))
        return True


@retried
def shorten_lease(database: Database, name: RepositoryName, digest: Digest, *, principal: str, left_s: float) -> None:
    """Let the principal's own lease of a blob that a manifest lists already end within `left_s` seconds.

    Raises NameUnknown.
    """
    until = time.time() + left_s
    with database.begin() as connection:
        repository_id = require_repository(connection, name)
        object_id = lock(connection, digest)
        if object_id is None:
            return
        named = select(Blob.id).where(Blob.digest == str(digest), Blob.object_id == object_id)
        mine = (BlobLink.repository_id == repository_id, BlobLink.leased_by == principal)
        shorter = update(BlobLink).where(*mine, BlobLink.blob_id.in_(named), BlobLink.lease_until > until)
        connection.execute(shorter.values(lease_until=until))
        settle(connection, [object_id])


def _held_names(session: Session, object_id: int) -> list[int]:
    """Ids of the object's names; it and they are held. None where one of them is in somebody's hands."""
    held = select(Object.id).where(Object.id == object_id).with_for_update(skip_locked=True)
    if session.execute(held).first() is None:
        return []
    names = select(Blob.id).where(Blob.object_id == object_id)
    ids = list(session.scalars(names.with_for_update(key_share=True, skip_locked=True)))  # a name may move
    return ids if len(ids) == len(session.scalars(names).all()) else []


def _hold_lists(session: Session, blob_ids: list[int]) -> bool:
    """Hold what manifests say of the blobs; False where one of those is being changed."""
    lists = select(ManifestBlob.manifest_id).where(ManifestBlob.blob_id.in_(blob_ids))
    held = session.scalars(lists.with_for_update(skip_locked=True)).all()
    return len(held) == len(session.scalars(lists).all())
