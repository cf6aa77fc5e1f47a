"""Reclaiming space while clients push: the bytes that no link and no manifest needs, one object at a time.

A link without a manifest lives as long as its lease; an object as long as a link or a manifest of any repository names
it. Each decision is taken again inside the transaction that acts on it, holding the object, so any number of nodes may
sweep at once. An object is marked `deleting` in one transaction, its bytes go, its rows go in a second one: a crash in
between leaves a mark, which is the tombstone that the next sweep finishes. Keys are never used twice, so a delete that
comes late hits nothing else.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from typing import Final

from sqlalchemy import ColumnElement, and_, delete, exists, or_, select, update
from sqlalchemy.orm import Session

from storage.blobs import settle
from storage.db import Database, insert
from storage.drivers.protocol import Driver
from storage.errors import KeyUnknown, StorageUnavailable
from storage.layout import BLOBS
from storage.models import DELETING, Blob, BlobLink, Manifest, ManifestBlob, ManifestChild, Object, Repository
from storage.models import Upload as UploadRow
from storage.reference import RepositoryName
from storage.retry import retried

MAX_OBJECTS: Final = 10_000  # of one sweep; the next one goes on
ORPHAN_S: Final = 48 * 3600.0  # longer than any upload session lives without a touch
_PAGE: Final = 500

_log: Final = logging.getLogger("tonnage.gc")


@dataclass(frozen=True, slots=True)
class Swept:
    """What a sweep took, or, as a dry run, would take now. `size` is in bytes."""

    links: int = 0
    objects: int = 0
    size: int = 0

    def __add__(self, other: Swept) -> Swept:
        return Swept(self.links + other.links, self.objects + other.objects, self.size + other.size)


class Collector:
    """Takes what nobody needs any more. Every step is complete in itself; stopping between any two loses nothing."""

    def __init__(self, database: Database, driver: Driver) -> None:
        self._database = database
        self._driver = driver

    def sweep(self, *, limit: int = MAX_OBJECTS, go_on: Callable[[], bool] = lambda: True) -> Swept:
        """One pass over at most `limit` links and as many objects. go_on: asked before each; False ends the pass."""
        swept = self.finish(limit=limit, go_on=go_on)
        now = time.time()
        for _, (repository_id, blob_id, object_id) in zip(range(limit), self._idle_links(now), strict=False):
            if not go_on():
                return swept
            swept += Swept(links=self.drop_link(repository_id, blob_id, object_id))
        for _, (object_id, _size) in zip(range(limit), self._idle_objects(now), strict=False):
            if not go_on():
                return swept
            if self.mark(object_id):
                swept += self.remove(object_id)
        return swept

    def candidates(self, *, limit: int = MAX_OBJECTS) -> Swept:
        """What `sweep` would take if nothing else happened; changes nothing."""
        now, links, swept = time.time(), set[tuple[int, int]](), Swept()
        for _, (repository_id, blob_id, _id) in zip(range(limit), self._idle_links(now), strict=False):
            links.add((repository_id, blob_id))
        swept += Swept(links=len(links))
        for _, (object_id, size) in zip(range(limit), self._objects_without(links, now), strict=False):
            _log.debug("candidate object=%d size=%d", object_id, size)
            swept += Swept(objects=1, size=size)
        return swept

    def finish(self, *, limit: int = MAX_OBJECTS, go_on: Callable[[], bool] = lambda: True) -> Swept:
        """Remove what an earlier sweep marked and did not come to remove."""
        query = select(Object.id).where(Object.state == DELETING).order_by(Object.id).limit(limit)
        with self._database.connect() as connection:
            marked = connection.execute(query).scalars().all()
        swept = Swept()
        for object_id in marked:
            if not go_on():
                break
            swept += self.remove(object_id)
        return swept

    def reclaim(self, name: RepositoryName, digests: Collection[str]) -> Swept:
        """`sweep` these blobs of one repository now; what a push under way or another repository needs stays."""
        swept = Swept()
        for digest in sorted(digests):
            query = (
                select(BlobLink.repository_id, BlobLink.blob_id, Blob.object_id)
                .join(Blob, Blob.id == BlobLink.blob_id)
                .join(Repository, Repository.id == BlobLink.repository_id)
                .where(Repository.name == str(name), Blob.digest == digest)
            )
            with self._database.connect() as connection:
                row = connection.execute(query).first()
            if row is not None and self.drop_link(row[0], row[1], row[2]):
                swept += Swept(links=1)
                if self.mark(row[2]):
                    swept += self.remove(row[2])
        return swept

    @retried
    def drop_link(self, repository_id: int, blob_id: int, object_id: int) -> bool:
        """Take the blob out of a repository that has neither a lease nor a manifest for it; whether it was taken."""
        with self._database.write() as session:
            named = select(Blob.id).where(Blob.id == blob_id, Blob.object_id == object_id)
            held = named.with_for_update(key_share=True, skip_locked=True)  # the name of a damaged object may move
            if _hold(session, object_id) is None or session.execute(held).first() is None:
                return False
            key = (BlobLink.repository_id == repository_id, BlobLink.blob_id == blob_id)
            gone = delete(BlobLink).where(*key, _is_idle_link(time.time()))
            gone = gone.execution_options(synchronize_session=False)
            if session.execute(gone.returning(BlobLink.blob_id)).first() is None:
                return False
            settle(session, [object_id])
        return True

    @retried
    def mark(self, object_id: int) -> bool:
        """The first transaction: from now on no reader and no push knows the object. False if somebody needs it."""
        with self._database.write() as session:
            state = _hold(session, object_id)
            if state is None or state == DELETING:
                return False
            unused = update(Object).where(Object.id == object_id, _is_idle_object(time.time())).values(state=DELETING)
            unused = unused.execution_options(synchronize_session=False)
            return session.execute(unused.returning(Object.id)).first() is not None

    @retried
    def remove(self, object_id: int) -> Swept:
        """The bytes of a marked object, then, in the second transaction, its rows. Doing it twice is harmless."""
        query = select(Object.storage_key, Object.size).where(Object.id == object_id, Object.state == DELETING)
        with self._database.connect() as connection:
            row = connection.execute(query).first()
        if row is None:
            return Swept()
        try:
            self._driver.delete(row.storage_key)
        except StorageUnavailable as error:  # the mark stays for a later sweep, and this one goes on with the others
            _log.warning("cannot delete key=%s: %s", row.storage_key, error)
            return Swept()
        with self._database.write() as session:
            # by its key too: another node may have been faster, and SQLite gives a free id to the next object
            same = (Object.id == object_id, Object.state == DELETING, Object.storage_key == row.storage_key)
            if session.execute(select(Object.id).where(*same).with_for_update()).first() is None:
                return Swept()
            names = delete(Blob).where(Blob.object_id == object_id).returning(Blob.digest)
            digests = session.scalars(names.execution_options(synchronize_session=False)).all()
            session.execute(delete(Object).where(*same).execution_options(synchronize_session=False))
        _log.info("removed digest=%s key=%s size=%d", ",".join(digests) or "-", row.storage_key, row.size)
        return Swept(objects=1, size=row.size)

    def adopt_orphans(self, *, older_than_s: float = ORPHAN_S, limit: int = MAX_OBJECTS) -> int:
        """Mark bytes that no row tells of, for the next sweep; how many. A crash between bytes and row leaves such.

        Where nothing tells how old bytes are, they stay. The mark is a row with their key: whoever
        still believed in them can no longer make them a blob.
        """
        adopted, page = 0, list[str]()
        for _, key in zip(range(100 * limit), self._driver.keys(BLOBS), strict=False):
            page.append(key)
            if len(page) == _PAGE:
                adopted, page = adopted + self._adopt(page, older_than_s), []
            if adopted >= limit:
                break
        return adopted + self._adopt(page, older_than_s)

    def forget_staged(self, *, older_than_s: float = ORPHAN_S) -> int:
        """Drop staged bytes of which no session tells, left by a crash between bytes and row; how many."""
        return self._driver.sweep_staged(self._known_keys, older_than_s=older_than_s)

    def _known_keys(self, keys: Collection[str]) -> set[str]:
        known = select(UploadRow.storage_key).where(UploadRow.storage_key.in_(keys))
        with self._database.connect() as connection:
            return set(connection.execute(known).scalars())

    def _adopt(self, keys: list[str], older_than_s: float) -> int:
        adopted = 0
        for key in self._unknown(keys):
            size = self._size_if_old(key, older_than_s)
            if size is None:
                continue
            with self._database.write() as session:
                if session.execute(select(UploadRow.id).where(UploadRow.storage_key == key)).first() is not None:
                    continue
                row = insert(session, Object).values(storage_key=key, size=size, state=DELETING, lease_until=0.0)
                row = row.on_conflict_do_nothing(index_elements=["storage_key"])
                adopted += session.execute(row.returning(Object.id)).first() is not None
        return adopted

    def _unknown(self, keys: list[str]) -> list[str]:
        known = set[str]()
        with self._database.connect() as connection:
            for column in (Object.storage_key, UploadRow.storage_key):
                known.update(connection.execute(select(column).where(column.in_(keys))).scalars())
        return [key for key in keys if key not in known]

    def _size_if_old(self, key: str, older_than_s: float) -> int | None:
        try:
            changed_at = self._driver.changed_at(key)
            if changed_at is None or changed_at > time.time() - older_than_s:
                return None
            return self._driver.stat(key)
        except KeyUnknown:
            return None

    def _idle_links(self, now: float) -> Iterator[tuple[int, int, int]]:
        """Repository, blob and object of links that look idle, in the order of their keys, a page at a time."""
        after = (-1, -1)
        while True:
            query = (
                select(BlobLink.repository_id, BlobLink.blob_id, Blob.object_id)
                .join(Blob, Blob.id == BlobLink.blob_id)
                .where(_is_idle_link(now), _behind(after))
                .order_by(BlobLink.repository_id, BlobLink.blob_id)
                .limit(_PAGE)
            )
            with self._database.connect() as connection:
                page = connection.execute(query).all()
            yield from ((row[0], row[1], row[2]) for row in page)
            if len(page) < _PAGE:
                return
            after = (page[-1][0], page[-1][1])

    def _idle_objects(self, now: float) -> Iterator[tuple[int, int]]:
        """Object and size of those that look unused, by id, a page at a time."""
        after = -1
        while True:
            query = select(Object.id, Object.size).where(
                Object.state != DELETING, _is_idle_object(now), Object.id > after
            )
            with self._database.connect() as connection:
                page = connection.execute(query.order_by(Object.id).limit(_PAGE)).all()
            yield from ((row[0], row[1]) for row in page)
            if len(page) < _PAGE:
                return
            after = page[-1][0]

    def _objects_without(self, links: set[tuple[int, int]], now: float) -> Iterator[tuple[int, int]]:
        """Objects that would be unused, or are marked, once these links are gone."""
        with self._database.connect() as connection:
            marked = select(Object.id, Object.size).where(Object.state == DELETING).order_by(Object.id)
            yield from ((row[0], row[1]) for row in connection.execute(marked.limit(MAX_OBJECTS)).all())
        yield from self._idle_objects(now)
        seen = set[int]()
        for _, blob_id in sorted(links):
            with self._database.connect() as connection:
                found = connection.execute(
                    select(Object.id, Object.size)
                    .join(Blob)
                    .where(Blob.id == blob_id, Object.state != DELETING, ~_has_manifest())
                ).first()
                if found is None or found[0] in seen:
                    continue
                seen.add(found[0])
                linked = select(BlobLink.repository_id, BlobLink.blob_id).join(Blob).where(Blob.object_id == found[0])
                is_unused = all((row[0], row[1]) in links for row in connection.execute(linked))
            if is_unused:
                yield found[0], found[1]


def _hold(session: Session, object_id: int) -> str | None:
    """The object's state, and nobody changes what it depends on; None if it is gone, or in somebody's hands."""
    held = select(Object.state).where(Object.id == object_id).with_for_update(skip_locked=True)
    return session.execute(held).scalar_one_or_none()


def _is_idle_link(now: float) -> ColumnElement[bool]:
    """No lease, and no manifest of the link's own repository lists the blob."""
    digest = select(Blob.digest).where(Blob.id == BlobLink.blob_id).correlate(BlobLink).scalar_subquery()
    listed = [
        exists()
        .where(table.digest == digest, Manifest.id == table.manifest_id)
        .where(Manifest.repository_id == BlobLink.repository_id)
        .correlate(BlobLink)
        for table in (ManifestBlob, ManifestChild)
    ]
    return and_(BlobLink.lease_until < now, ~or_(*listed))


def _is_idle_object(now: float) -> ColumnElement[bool]:
    """No lease, no repository links to it, no manifest names it, by any of its digests."""
    linked = exists().where(Blob.object_id == Object.id, BlobLink.blob_id == Blob.id).correlate(Object)
    return and_(Object.lease_until < now, ~linked, ~_has_manifest())


def _has_manifest() -> ColumnElement[bool]:
    return exists().where(Blob.object_id == Object.id, ManifestBlob.blob_id == Blob.id).correlate(Object)


def _behind(after: tuple[int, int]) -> ColumnElement[bool]:
    return or_(BlobLink.repository_id > after[0], and_(BlobLink.repository_id == after[0], BlobLink.blob_id > after[1]))
