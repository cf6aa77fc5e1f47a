"""What mirrors keep here: when each blob was last pulled, and which go when there are too many bytes.

Only blobs that no pushed repository has to do with can go: they are fetched again when somebody asks.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from sqlalchemy import and_, bindparam, delete, exists, func, select
from sqlalchemy.exc import DBAPIError

from registry.mirror.models import MirrorRead, MirrorTag
from registry.mirror.rows import is_mirrored, is_staged, unasked_tags, unnamed_manifests
from registry.remotes.fetch import marker_of
from storage.db import Database, Upsert
from storage.digest import Digest
from storage.errors import ManifestUnknown, NameUnknown, StorageError
from storage.evict import Evictor, shorten_lease
from storage.manifest import Descriptor
from storage.models import Blob, BlobLink, Object, Repository, Tag, Upload
from storage.reference import RepositoryName
from storage.reference import Tag as TagName
from storage.store import Store

NOTE_S: Final = 3600.0
FETCHED_LEASE_S: Final = 600.0  # for whoever asked for the blob to begin reading it
FORGET_S: Final = 7 * 24 * 3600.0
FORGET_TAG_S: Final = 30 * 24 * 3600.0
IDLE_S: Final = 3600.0  # that the bytes of a fetch wait for somebody to go on with it
_COUNTED_S: Final = 5.0  # that a count is added to: one of ten thousand blobs takes a tenth of a second
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
        self._evictor = Evictor(store.database, store.collector, is_mirrored)
        self._lock = threading.Lock()
        self._counted, self._counted_until = 0, float("-inf")

    def size(self) -> int:
        """Bytes that are here for the mirrors alone."""
        return self._evictor.size()

    def trim(self, *, go_on: Callable[[], bool] = lambda: True) -> int:
        """Evict the blobs that were pulled least recently, if there are too many; how many bytes that freed."""
        if not self._marks.high or (size := self.size()) <= self._marks.high:
            return 0
        freed, left = self._evict(size, self._marks.low, go_on)
        if left > self._marks.high and go_on():
            _log.warning("mirrored blobs have %d bytes, more than TONNAGE_MIRROR_HIGH, but are in use", left)
        return freed

    def make_room(self, name: RepositoryName, blob: Descriptor) -> bool:
        """Whether the high mark leaves room to fetch the blob into the repository, beside what is here and on its way.

        Blobs that were pulled least recently go for it, now. What is on its way counts as far as it has come.
        """
        if not self._marks.high:
            return True
        with self._lock:
            if time.monotonic() < self._counted_until and self._counted + blob.size <= self._marks.high:
                self._counted += blob.size
                return True
            return self._make_room(name, blob)

    def expire_staged(self) -> int:
        """Drop what fetches left that nobody went on with for an hour, in one bounded batch; how many."""
        return self._store.uploads.expire(idle_s=IDLE_S, only=is_staged())

    def forget_manifests(self, *, older_than_s: float = FORGET_S, limit: int = _MAX_MANIFESTS) -> int:
        """Remove manifests of which no blob is here, and which no index and no tag names any more; how many.

        A tag of which the upstream was not asked for a month goes with its manifest. What was noted about tags that are
        gone goes too.
        """
        forgotten, before = self._forget_tags(limit), time.time() - older_than_s
        with self._store.database.connect() as connection:
            found = connection.execute(unnamed_manifests(before).limit(limit)).all()
        for name, digest in found:
            try:
                self._store.repositories.remove_untagged(RepositoryName(name), Digest.parse(digest))
            except NameUnknown:  # the repository went meanwhile
                continue
        with self._store.database.begin() as connection:
            tagged = exists().where(Tag.repository_id == MirrorTag.repository_id, Tag.name == MirrorTag.name)
            connection.execute(delete(MirrorTag).where(MirrorTag.checked_at < before, ~tagged))
        return forgotten + len(found)

    def _forget_tags(self, limit: int) -> int:
        with self._store.database.connect() as connection:
            found = connection.execute(unasked_tags(time.time() - FORGET_TAG_S).limit(limit)).all()
        for name, tag in found:
            with suppress(ManifestUnknown, NameUnknown):  # it went meanwhile
                self._store.repositories.remove_model(RepositoryName(name), TagName(tag))
        return len(found)

    def _make_room(self, name: RepositoryName, blob: Descriptor) -> bool:
        staged = self._staged_size(besides=(name, blob.digest))
        most = self._marks.high - blob.size - staged
        if most < 0:
            return False
        size = self.size()
        left = size if size <= most else self._evict(size, most)[1]
        self._counted, self._counted_until = left + staged + blob.size, time.monotonic() + _COUNTED_S
        return left <= most

    def _evict(self, left: int, until: int, go_on: Callable[[], bool] = lambda: True) -> tuple[int, int]:
        """Of `left` bytes, give up some until so many are left: how many went, and how many there are."""
        freed = 0
        for object_id in self._least_recently_pulled():
            if left <= until or not go_on():
                break
            size = self._evictor.evict(object_id)
            freed += size
            left = left - size if size else self.size()  # another node may be at it too
        return freed, left

    def _staged_size(self, *, besides: tuple[RepositoryName, Digest]) -> int:
        """Bytes that fetches have brought which are no blobs yet, but for those of one."""
        name, digest = besides
        is_own = and_(Repository.name == str(name), Upload.opened_with == marker_of(digest))
        query = (
            select(func.coalesce(func.sum(Upload.offset), 0))
            .join(Repository, Repository.id == Upload.repository_id)
            .where(is_staged(), ~is_own)
        )
        with self._store.database.connect() as connection:
            return int(connection.execute(query).scalar_one())

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
