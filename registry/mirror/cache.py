"""What mirrors keep here: when each blob was last pulled, and which go when there are too many bytes.

Only blobs that no pushed repository has to do with can go: they are fetched again when somebody asks.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from sqlalchemy import (
    ColumnElement,
    ColumnExpressionArgument,
    Select,
    and_,
    bindparam,
    delete,
    exists,
    func,
    or_,
    select,
)
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import aliased

from registry.mirror.models import Mirror, MirrorRead, MirrorTag
from storage.db import Database, Upsert
from storage.digest import Digest
from storage.errors import NameUnknown, StorageError
from storage.evict import Evictor, shorten_lease
from storage.models import Blob, BlobLink, Manifest, ManifestBlob, ManifestChild, Object, Repository, Tag
from storage.reference import RepositoryName
from storage.store import Store

NOTE_S: Final = 3600.0
FETCHED_LEASE_S: Final = 600.0  # for whoever asked for the blob to begin reading it
FORGET_S: Final = 7 * 24 * 3600.0
_MAX_NOTED: Final = 10_000
_MAX_OBJECTS: Final = 10_000  # of one turn, like _MAX_MANIFESTS; the next one goes on
_MAX_MANIFESTS: Final = 1_000

_log: Final = logging.getLogger("tonnage.mirror")

_READ: Final = Upsert(
    MirrorRead,
    lambda row: row.from_select(
        ["repository_id", "blob_id", "read_at"],
        select(BlobLink.repository_id, BlobLink.blob_id, bindparam("now", type_=MirrorRead.read_at.type))
        .join(Blob, Blob.id == BlobLink.blob_id)
        .join(Repository, Repository.id == BlobLink.repository_id)
        .where(Repository.name == bindparam("name"), Blob.digest == bindparam("digest")),
    ).on_conflict_do_update(index_elements=["repository_id", "blob_id"], set_={"read_at": row.excluded.read_at}),
)


class MirrorReads:
    """Remembers pulls of mirrored blobs. One for a process: it writes each down at most once an hour."""

    def __init__(self, database: Database, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._database, self._clock = database, clock
        self._noted: OrderedDict[tuple[RepositoryName, Digest], float] = OrderedDict()
        self._lock = threading.Lock()

    def note(self, name: RepositoryName, digest: Digest) -> None:
        """The blob is being pulled. No reason to fail for whoever pulls it: a store that refuses is only logged."""
        if not self._is_due(name, digest):
            return
        try:
            with self._database.begin() as connection:
                connection.execute(_READ.on(connection), {"now": time.time(), "name": str(name), "digest": str(digest)})
        except (StorageError, DBAPIError) as error:  # the second, for one: it was swept in this very moment
            _log.warning("a pull is not remembered: name=%s digest=%s: %s", name, digest, type(error).__name__)

    def fetched(self, name: RepositoryName, digest: Digest, *, principal: str) -> None:
        """The blob has just come, for the manifest that lists it: that keeps it, the principal's lease need not.

        Else nothing of the last day could be evicted. Never fails, like `note`.
        """
        self.note(name, digest)
        try:
            shorten_lease(self._database, name, digest, principal=principal, left_s=FETCHED_LEASE_S)
        except StorageError as error:
            _log.warning("a lease stays: name=%s digest=%s: %s", name, digest, error)

    def _is_due(self, name: RepositoryName, digest: Digest) -> bool:
        """Whether it is the first pull within the hour, and if so, no longer."""
        key, now = (name, digest), self._clock()
        with self._lock:
            if now - self._noted.get(key, float("-inf")) < NOTE_S:
                return False
            self._noted[key] = now
            self._noted.move_to_end(key)
            if len(self._noted) > _MAX_NOTED:
                self._noted.popitem(last=False)
            return True


@dataclass(frozen=True, slots=True)
class Watermarks:
    """Bytes of mirrored blobs: above `high`, blobs go until `low` are left. A high of 0 lets all stay."""

    high: int = 0
    low: int = 0


class MirrorCache:
    """Keeps what the mirrors fetched within the watermarks. Any number of nodes may do so at once."""

    def __init__(self, store: Store, marks: Watermarks) -> None:
        self._store, self._marks = store, marks
        self._evictor = Evictor(store.database, store.collector, _is_mirrored)

    def size(self) -> int:
        """Bytes that are here for the mirrors alone."""
        return self._evictor.size()

    def trim(self, *, go_on: Callable[[], bool] = lambda: True) -> int:
        """Evict the blobs that were pulled least recently, if there are too many; how many bytes that freed."""
        if not self._marks.high or (left := self.size()) <= self._marks.high:
            return 0
        freed = 0
        for object_id in self._least_recently_pulled():
            if left <= self._marks.low or not go_on():
                break
            size = self._evictor.evict(object_id)
            freed += size
            left = left - size if size else self.size()  # another node may be at it too
        else:
            if left > self._marks.high:
                _log.warning("mirrored blobs have %d bytes, more than TONNAGE_MIRROR_HIGH, but are in use", left)
        return freed

    def forget_manifests(self, *, older_than_s: float = FORGET_S, limit: int = _MAX_MANIFESTS) -> int:
        """Remove manifests that no tag and no index names any more and of which no blob is here; how many.

        What was noted about tags that are gone goes too.
        """
        before = time.time() - older_than_s
        with self._store.database.connect() as connection:
            found = connection.execute(_unnamed_manifests(before).limit(limit)).all()
        for name, digest in found:
            try:
                self._store.repositories.remove_untagged(RepositoryName(name), Digest.parse(digest))
            except NameUnknown:  # the repository went meanwhile
                continue
        with self._store.database.begin() as connection:
            tagged = exists().where(Tag.repository_id == MirrorTag.repository_id, Tag.name == MirrorTag.name)
            connection.execute(delete(MirrorTag).where(MirrorTag.checked_at < before, ~tagged))
        return len(found)

    def _least_recently_pulled(self) -> Iterator[int]:
        """Objects that may go. One whose pulls nobody noted goes first."""
        read_at = func.coalesce(func.max(MirrorRead.read_at), 0.0)
        query = (
            select(Object.id)
            .join(Blob, Blob.object_id == Object.id)
            .outerjoin(MirrorRead, MirrorRead.blob_id == Blob.id)
            .where(self._evictor.may_go)
            .group_by(Object.id)
            .order_by(read_at, Object.id)
            .limit(_MAX_OBJECTS)
        )
        with self._store.database.connect() as connection:
            found = connection.execute(query).scalars().all()
        yield from found


def _is_mirrored(repository_id: ColumnExpressionArgument[int]) -> ColumnElement[bool]:
    """Whether the repository lies below the prefix of a mirror."""
    below = and_(Repository.name > Mirror.prefix + "/", Repository.name < Mirror.prefix + "0")  # "0" follows "/"
    covered = exists().where(Repository.id == repository_id, or_(Repository.name == Mirror.prefix, below))
    return covered.correlate_except(Repository, Mirror)


def _unnamed_manifests(before: float) -> Select[str, str]:
    """Repository and digest of those, stored before then, that are of no use to anybody here."""
    parent, child = aliased(Manifest), aliased(Manifest)
    tagged = exists().where(Tag.manifest_id == Manifest.id)
    listed = exists().where(
        ManifestChild.digest == Manifest.digest,
        parent.id == ManifestChild.manifest_id,
        parent.repository_id == Manifest.repository_id,
        parent.id != Manifest.id,
    )
    has_blobs = exists().where(ManifestBlob.manifest_id == Manifest.id, ManifestBlob.blob_id.is_not(None))
    leads_to_blobs = exists().where(
        ManifestChild.manifest_id == Manifest.id,
        child.digest == ManifestChild.digest,
        child.repository_id == Manifest.repository_id,
        ManifestBlob.manifest_id == child.id,
        ManifestBlob.blob_id.is_not(None),
    )
    needed = (each.correlate(Manifest) for each in (tagged, listed, has_blobs, leads_to_blobs))
    return (
        select(Repository.name, Manifest.digest)
        .join(Repository, Repository.id == Manifest.repository_id)
        .where(_is_mirrored(Manifest.repository_id), Manifest.pushed_at < before, ~or_(*needed))
        .order_by(Manifest.id)
    )
