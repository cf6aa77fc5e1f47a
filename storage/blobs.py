"""Blobs: bytes named by digest, seen through the repositories that hold a link to them."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import BinaryIO, Final, NamedTuple, TypeVar

from sqlalchemy import Connection, Executable, Select, bindparam, case, delete, func, insert, or_, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from storage import layout
from storage.db import Database, HotQuery, Upsert
from storage.digest import ALGORITHMS, Digest
from storage.drivers.protocol import Driver
from storage.errors import BlobReferenced, BlobUnknown, DigestInvalid, KeyUnknown, StorageUnavailable
from storage.leftovers import drop, mark
from storage.models import LIVE, Blob, BlobLink, Manifest, ManifestBlob, ManifestChild, Object, Repository
from storage.namespaces import ensure_repository, require_repository
from storage.reference import HOLDING, RepositoryName
from storage.retry import retried

T = TypeVar("T")

LEASE_S: Final = 24 * 3600.0  # must exceed the longest push: a client that was told "exists" never sends the bytes
_MAX_HOLDERS: Final = 100
_BATCH: Final = 1000  # ids in one statement
_HOLD_TRIES: Final = 5
_SEVERAL: Final = "*"  # no principal is called so
_NONE: Final = -1  # no row's id


@dataclass(frozen=True, slots=True)
class BlobInfo:
    """A blob that the repository may serve. `key` is the driver's."""

    digest: Digest
    size: int
    key: str


def _linked() -> Select[int, str, int, float, str | None]:
    return (
        select(Object.id, Object.storage_key, Object.size, BlobLink.lease_until, BlobLink.leased_by)
        .join_from(Repository, BlobLink, BlobLink.repository_id == Repository.id)
        .join(Blob, Blob.id == BlobLink.blob_id)
        .join(Object, Object.id == Blob.object_id)
        .where(Repository.name == bindparam("name"), Blob.digest == bindparam("digest"), Object.state == LIVE)
    )


_LINKED: Final = _linked()
_FIND: Final = HotQuery(_LINKED)
_LINKED_HELD: Final = _LINKED.with_for_update(of=Object)
_RENEWED: Final = (
    select(BlobLink.blob_id, Object.id, Object.size, Object.storage_key)
    .join_from(BlobLink, Blob, Blob.id == BlobLink.blob_id)
    .join(Object, Object.id == Blob.object_id)
    .where(BlobLink.repository_id == bindparam("repository"), Blob.digest == bindparam("digest"), Object.state == LIVE)
)
_NAMED: Final = select(Blob.id).where(Blob.digest == bindparam("digest"))


class _Linked(NamedTuple):
    """A row of `_LINKED`."""

    object_id: int
    storage_key: str
    size: int
    lease_until: float
    leased_by: str | None


class Blobs:
    """Every blob of the store. A digest is known in a repository only through a link, never because the bytes exist."""

    def __init__(self, database: Database, driver: Driver) -> None:
        self._database = database
        self._driver = driver
        self.told_of_use: Callable[[RepositoryName, Digest], None] = lambda name, digest: None

    def stat(self, name: RepositoryName, digest: Digest) -> BlobInfo:
        """Raises BlobUnknown, NameUnknown."""
        row = self._find(name, digest)
        return BlobInfo(digest, row.size, row.storage_key)

    def open(self, name: RepositoryName, digest: Digest, *, start: int = 0) -> BinaryIO:
        """A reader that begins `start` bytes in. Raises BlobUnknown, NameUnknown."""
        return self._at_key(name, digest, lambda key: self._driver.open(key, start=start))

    def local_path(self, name: RepositoryName, digest: Digest) -> Path | None:
        """The file to map, where the driver keeps files; `told_of_use` hears of it. Raises BlobUnknown, NameUnknown."""
        self.told_of_use(name, digest)
        return self._at_key(name, digest, self._driver.local_path)

    def download_url(self, blob: BlobInfo, *, expires_s: int) -> str | None:
        """Where a client may fetch the blob itself; None means "stream it through us"."""
        return self._driver.download_url(blob.key, expires_s=expires_s)

    def put(
        self,
        name: RepositoryName,
        data: bytes,
        *,
        algorithm: str = "sha256",
        digest: Digest | None = None,
        principal: str | None = None,
    ) -> BlobInfo:
        """Store small bytes that are in memory, with a lease for the push of `principal`.

        digest: what their digest must be; without one they are named by `algorithm`. Raises DigestInvalid.
        """
        digests = {each: Digest.of(data, each) for each in ALGORITHMS}
        algorithm = digest.algorithm if digest is not None else algorithm
        if digest is not None and digests[algorithm] != digest:
            raise DigestInvalid("the bytes have another digest", digest=str(digest))
        key = layout.new_blob_key()
        self._driver.write(key, BytesIO(data))
        kept = self._admit(name, digests[algorithm], digests.values(), principal, key=key, size=len(data))
        if kept != key:
            drop(self._database, self._driver, key)
        return BlobInfo(digests[algorithm], len(data), kept)

    @retried
    def _admit(
        self, name: RepositoryName, digest: Digest, aliases: Collection[Digest], who: str | None, *, key: str, size: int
    ) -> str:
        with self._database.begin() as connection:
            repository_id = ensure_repository(connection, name)
            return admit(connection, repository_id, digest, aliases, who, key=key, size=size)

    @retried
    def mount(
        self, digest: Digest, *, source: RepositoryName, into: RepositoryName, principal: str | None = None
    ) -> bool:
        """Link a blob of `source` into another repository, with a new lease; False if `source` does not hold it."""
        named = {"name": str(source), "digest": str(digest)}
        with self._database.begin() as connection:
            if connection.execute(_LINKED, named).first() is None:
                return False
            repository_id = ensure_repository(connection, into)  # before the object, in the order of a manifest's push
            row = connection.execute(_LINKED_HELD, named).first()
            if row is None:  # a sweep took it in between
                return False
            blob_id = connection.execute(_NAMED, {"digest": str(digest)}).scalar_one()
            return link(connection, repository_id, blob_id, row.id, principal)

    def holders(self, digest: Digest) -> list[RepositoryName]:
        """Some repositories that hold the blob, for a mount that names no source; the caller sees what it may read."""
        query = (
            select(Repository.name)
            .join_from(Blob, BlobLink, BlobLink.blob_id == Blob.id)
            .join(Repository, Repository.id == BlobLink.repository_id)
            .join(Object, Object.id == Blob.object_id)
            .where(Blob.digest == str(digest), Object.state == LIVE)
            .where(~Repository.name.startswith(f"{HOLDING}/", autoescape=True))
            .order_by(Repository.name)
            .limit(_MAX_HOLDERS)
        )
        with self._database.read() as session:
            return [RepositoryName(name) for name in session.scalars(query)]

    @retried
    def unlink(self, name: RepositoryName, digest: Digest) -> None:
        """Take the blob out of the repository. Raises BlobUnknown, NameUnknown, BlobReferenced."""
        with self._database.begin() as connection:
            repository_id = require_repository(connection, name)
            object_id = lock(connection, digest)
            if is_referenced(connection, repository_id, digest):
                raise BlobReferenced("a manifest of the repository needs the blob", digest=str(digest))
            blob_ids = select(Blob.id).join(Object).where(Blob.digest == str(digest), Object.state == LIVE)
            gone = delete(BlobLink).where(BlobLink.repository_id == repository_id, BlobLink.blob_id.in_(blob_ids))
            if object_id is None or connection.execute(gone.returning(BlobLink.blob_id)).first() is None:
                raise BlobUnknown("no such blob in this repository", digest=str(digest))
            settle(connection, [object_id])

    @retried
    def renew_lease(self, name: RepositoryName, digest: Digest, *, principal: str | None = None) -> BlobInfo:
        """`stat`, and a promise to who may push that the blob stays while the client acts on the answer.

        Writes only when less than half of the lease is left. Raises BlobUnknown, NameUnknown.
        """
        row = self._find(name, digest)
        if row.lease_until > time.time() + LEASE_S / 2 and row.leased_by in (principal or "", _SEVERAL):
            return BlobInfo(digest, row.size, row.storage_key)
        with self._database.begin() as connection:
            repository_id = require_repository(connection, name)
            lock(connection, digest)
            found = connection.execute(_RENEWED, {"repository": repository_id, "digest": str(digest)}).first()
            if found is None or not link(connection, repository_id, found[0], found[1], principal):
                raise BlobUnknown("no such blob in this repository", digest=str(digest))
        return BlobInfo(digest, found.size, found.storage_key)

    def _at_key(self, name: RepositoryName, digest: Digest, use: Callable[[str], T]) -> T:
        """`use` the blob's key; between row and bytes a sweep may have come, and a new push after it."""
        key = self.stat(name, digest).key
        try:
            return use(key)
        except KeyUnknown:
            new_key = self.stat(name, digest).key
            if new_key == key:
                raise
            return use(new_key)

    def _find(self, name: RepositoryName, digest: Digest) -> _Linked:
        row = self._database.first(_FIND, name=str(name), digest=str(digest))
        if row is None:
            with self._database.connect() as connection:
                require_repository(connection, name)
            raise BlobUnknown("no such blob in this repository", digest=str(digest))
        return _Linked(*row)


_KNOWN: Final = (
    select(Object.id, Object.storage_key)
    .join(Blob)
    .where(Blob.digest.in_(bindparam("names", expanding=True)), Object.state == LIVE, Object.id != bindparam("but"))
    .order_by(Object.id)
    .limit(1)
    .with_for_update(of=Object)
)
_NEW: Final = insert(Object).returning(Object.id)
_DROP: Final = delete(Object).where(Object.id == bindparam("object"))
_NAME_OF: Final = _NAMED.where(Blob.object_id == bindparam("object_id"))
_MOVE_NAME: Final = Upsert(
    Blob,
    lambda row: row.on_conflict_do_update(
        index_elements=["digest"], set_={"object_id": row.excluded.object_id}
    ).returning(Blob.id),
)


def admit(
    connection: Connection,
    repository_id: int,
    digest: Digest,
    aliases: Iterable[Digest],
    principal: str | None,
    *,
    key: str,
    size: int,
) -> str:
    """Make durable bytes at `key` a blob of the repository, leased; the key that is kept.

    Bytes that are already here under `digest`, or under an alias (another digest of the same bytes), are linked and
    their key is returned: the caller drops its own, which is marked, and unmarks it. The name of an object that is
    being deleted, or is damaged, moves to the new one.
    """
    names = {"names": list({str(digest), *map(str, aliases)})}
    row = connection.execute(_KNOWN, names | {"but": _NONE}).first()
    if row is None:
        now = time.time()
        values = {"storage_key": key, "size": size, "state": LIVE, "lease_until": now + LEASE_S}
        object_id = connection.execute(_NEW, values).scalar_one()
        blob_id = _take_name(connection, digest, object_id)
        if blob_id is not None:  # it was free, so no push was faster; and the object's lease is as new as itself
            _link(connection, repository_id, blob_id, principal, now)
            return key
        row = connection.execute(_KNOWN, names | {"but": object_id}).first()
        if row is not None:
            connection.execute(_DROP, {"object": object_id})  # the same push elsewhere was faster
    kept = key
    if row is not None:
        object_id, kept = row
        mark(connection, {key: size})
    name = {"digest": str(digest), "object_id": object_id}
    # Only read where it is the object's already: of pushes at once, another may hold it and wait for the object.
    blob_id = connection.execute(_NAME_OF, name).scalar_one_or_none()
    if blob_id is None:
        blob_id = connection.execute(_MOVE_NAME.on(connection), name).scalar_one()
    link(connection, repository_id, blob_id, object_id, principal)
    return kept


_TAKE_NAME: Final = Upsert(Blob, lambda row: row.on_conflict_do_nothing().returning(Blob.id))
_HOLD_NAME: Final = _NAMED.with_for_update(key_share=True)


def _take_name(connection: Connection, digest: Digest, object_id: int) -> int | None:
    """Give the name to the object if it is free, else hold it: of pushes at once, each sees what the one before did."""
    name = {"digest": str(digest)}
    for _ in range(_HOLD_TRIES):
        taken = connection.execute(_TAKE_NAME.on(connection), name | {"object_id": object_id}).first()
        if taken is not None:
            return int(taken[0])
        if connection.execute(_HOLD_NAME, name).first() is not None:  # none where a sweep took it away in between
            return None
    raise StorageUnavailable("the blob is pushed and swept again and again", digest=str(digest))


_EXTEND: Final = update(Object).where(Object.id == bindparam("object"), Object.state == LIVE).returning(Object.id)


def link(connection: Connection, repository_id: int, blob_id: int, object_id: int, principal: str | None) -> bool:
    """Link the blob, and extend both leases; False if its object is no longer live."""
    now = time.time()
    alive = connection.execute(_EXTEND, {"object": object_id, "lease_until": now + LEASE_S}).first()
    if alive is None:
        return False
    _link(connection, repository_id, blob_id, principal, now)
    return True


def _shared(row: sqlite.Insert | postgresql.Insert) -> Executable:
    """The link with its lease. One that ran for somebody else is several pushes' from now on."""
    theirs = row.excluded.leased_by
    is_ours = or_(BlobLink.lease_until < bindparam("now"), BlobLink.leased_by == theirs)
    shared = {"lease_until": row.excluded.lease_until, "leased_by": case((is_ours, theirs), else_=_SEVERAL)}
    return row.on_conflict_do_update(index_elements=["repository_id", "blob_id"], set_=shared)


_LINK: Final = Upsert(BlobLink, _shared)
_AWAITED: Final = (  # by manifests that came before their blob, on a mirror
    update(ManifestBlob)
    .where(ManifestBlob.digest == select(Blob.digest).where(Blob.id == bindparam("blob")).scalar_subquery())
    .where(ManifestBlob.blob_id.is_(None))
)


def _link(connection: Connection, repository_id: int, blob_id: int, principal: str | None, now: float) -> None:
    """`link` to an object whose lease has been extended."""
    lease = {"lease_until": now + LEASE_S, "leased_by": principal or ""}
    row = {"repository_id": repository_id, "blob_id": blob_id, "now": now}
    connection.execute(_LINK.on(connection), row | lease)
    connection.execute(_AWAITED, {"blob": blob_id, "blob_id": blob_id})


_LOCK: Final = (
    select(Object.id)
    .join(Blob)
    .where(Blob.digest == bindparam("digest"))
    .with_for_update(of=[Object, Blob], key_share=True)  # the name too: it may move from a damaged object
)


def lock(connection: Connection, digest: Digest) -> int | None:
    """Hold the blob's object until the transaction ends; its id, None if there is none to hold.

    Who links, unlinks, lists in a manifest or sweeps a blob holds its object first and looks, in a statement of its
    own, afterwards: on PostgreSQL a statement does not see what was committed while it waited.
    """
    return connection.execute(_LOCK, {"digest": str(digest)}).scalar_one_or_none()


_CONSUME: Final = (
    update(BlobLink)
    .where(BlobLink.repository_id == bindparam("repository"), BlobLink.leased_by == bindparam("who"))
    .where(BlobLink.lease_until > 0, BlobLink.blob_id.in_(bindparam("blobs", expanding=True)))
    .values(lease_until=0.0)
    .returning(BlobLink.blob_id)
    .execution_options(synchronize_session=False)
)


def consume_leases(session: Session, repository_id: int, held: Mapping[int, int], principal: str | None) -> None:
    """A manifest of this principal's push took over: from now on its blobs stay because it lists them.

    held: blob id → object id, of objects that the transaction holds. A lease that others share is theirs too, and runs.
    """
    ids, mine = list(held), {"repository": repository_id, "who": principal or ""}
    for start in range(0, len(ids), _BATCH):
        batch = ids[start : start + _BATCH]
        if session.execute(_CONSUME, mine | {"blobs": batch}).first() is not None:
            settle(session, {held[blob_id] for blob_id in batch})


_LATEST: Final = (
    select(func.max(BlobLink.lease_until))
    .join(Blob, Blob.id == BlobLink.blob_id)
    .where(Blob.object_id == Object.id)
    .scalar_subquery()
)
_SETTLE: Final = (
    update(Object)
    .where(Object.id.in_(bindparam("objects", expanding=True)))
    .values(lease_until=func.coalesce(_LATEST, 0.0))
    .execution_options(synchronize_session=False)
)


def settle(session: Session | Connection, object_ids: Collection[int]) -> None:
    """Let the lease of each object be the latest of its links'. The transaction holds the objects."""
    session.execute(_SETTLE, {"objects": list(object_ids)})


def is_referenced(connection: Connection, repository_id: int, digest: Digest) -> bool:
    """Does a manifest of the repository list the digest?"""
    for table in (ManifestBlob, ManifestChild):
        listed = select(func.count()).select_from(table).join(Manifest, Manifest.id == table.manifest_id)
        listed = listed.where(Manifest.repository_id == repository_id, table.digest == str(digest))
        if connection.execute(listed).scalar_one():
            return True
    return False
