"""Blobs: bytes named by digest, seen through the repositories that hold a link to them."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import BinaryIO, Final, NamedTuple, TypeVar

from sqlalchemy import Select, bindparam, case, delete, func, or_, select, update
from sqlalchemy.orm import Session

from storage import layout
from storage.db import Database, HotQuery, insert
from storage.digest import ALGORITHMS, Digest
from storage.drivers.protocol import Driver
from storage.errors import BlobReferenced, BlobUnknown, DigestInvalid, KeyUnknown, StorageUnavailable
from storage.models import LIVE, Blob, BlobLink, Manifest, ManifestBlob, ManifestChild, Object, Repository
from storage.namespaces import ensure_repository, require_repository
from storage.reference import RepositoryName

T = TypeVar("T")

LEASE_S: Final = 24 * 3600.0  # must exceed the longest push: a client that was told "exists" never sends the bytes
_MAX_HOLDERS: Final = 100
_BATCH: Final = 1000  # ids in one statement
_HOLD_TRIES: Final = 5
_SEVERAL: Final = "*"  # no principal is called so


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

    def stat(self, name: RepositoryName, digest: Digest) -> BlobInfo:
        """Raises BlobUnknown, NameUnknown."""
        row = self._find(name, digest)
        return BlobInfo(digest, row.size, row.storage_key)

    def open(self, name: RepositoryName, digest: Digest, *, start: int = 0) -> BinaryIO:
        """A reader that begins `start` bytes in. Raises BlobUnknown, NameUnknown."""
        return self._at_key(name, digest, lambda key: self._driver.open(key, start=start))

    def local_path(self, name: RepositoryName, digest: Digest) -> Path | None:
        """The file to map, where the driver keeps files. Raises BlobUnknown, NameUnknown."""
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
        with self._database.write() as session:
            repository_id = ensure_repository(session, name)
            names = digests.values()
            kept = admit(session, repository_id, digests[algorithm], names, principal, key=key, size=len(data))
        if kept != key:
            self._driver.delete(key)
        return BlobInfo(digests[algorithm], len(data), kept)

    def mount(
        self, digest: Digest, *, source: RepositoryName, into: RepositoryName, principal: str | None = None
    ) -> bool:
        """Link a blob of `source` into another repository, with a new lease; False if `source` does not hold it."""
        named = {"name": str(source), "digest": str(digest)}
        with self._database.write() as session:
            if session.execute(_LINKED, named).first() is None:
                return False
            repository_id = ensure_repository(session, into)  # before the object, in the order of a manifest's push
            row = session.execute(_LINKED.with_for_update(of=Object), named).first()
            if row is None:  # a sweep took it in between
                return False
            blob_id = session.execute(select(Blob.id).where(Blob.digest == str(digest))).scalar_one()
            return link(session, repository_id, blob_id, row.id, principal)

    def holders(self, digest: Digest) -> list[RepositoryName]:
        """Some repositories that hold the blob, for a mount that names no source; the caller sees what it may read."""
        query = (
            select(Repository.name)
            .join_from(Blob, BlobLink, BlobLink.blob_id == Blob.id)
            .join(Repository, Repository.id == BlobLink.repository_id)
            .join(Object, Object.id == Blob.object_id)
            .where(Blob.digest == str(digest), Object.state == LIVE)
            .order_by(Repository.name)
            .limit(_MAX_HOLDERS)
        )
        with self._database.read() as session:
            return [RepositoryName(name) for name in session.scalars(query)]

    def unlink(self, name: RepositoryName, digest: Digest) -> None:
        """Take the blob out of the repository. Raises BlobUnknown, NameUnknown, BlobReferenced."""
        with self._database.write() as session:
            repository_id = require_repository(session, name)
            object_id = lock(session, digest)
            if is_referenced(session, repository_id, digest):
                raise BlobReferenced("a manifest of the repository needs the blob", digest=str(digest))
            blob_ids = select(Blob.id).join(Object).where(Blob.digest == str(digest), Object.state == LIVE)
            gone = delete(BlobLink).where(BlobLink.repository_id == repository_id, BlobLink.blob_id.in_(blob_ids))
            gone = gone.execution_options(synchronize_session=False)
            if object_id is None or session.execute(gone.returning(BlobLink.blob_id)).first() is None:
                raise BlobUnknown("no such blob in this repository", digest=str(digest))
            settle(session, [object_id])

    def renew_lease(self, name: RepositoryName, digest: Digest, *, principal: str | None = None) -> BlobInfo:
        """`stat`, and a promise to who may push that the blob stays while the client acts on the answer.

        Writes only when less than half of the lease is left. Raises BlobUnknown, NameUnknown.
        """
        row = self._find(name, digest)
        if row.lease_until > time.time() + LEASE_S / 2 and row.leased_by in (principal or "", _SEVERAL):
            return BlobInfo(digest, row.size, row.storage_key)
        with self._database.write() as session:
            repository_id = require_repository(session, name)
            lock(session, digest)
            found = session.execute(
                select(BlobLink.blob_id, Object.id, Object.size, Object.storage_key)
                .join_from(BlobLink, Blob, Blob.id == BlobLink.blob_id)
                .join(Object, Object.id == Blob.object_id)
                .where(BlobLink.repository_id == repository_id, Blob.digest == str(digest), Object.state == LIVE)
            ).first()
            if found is None or not link(session, repository_id, found[0], found[1], principal):
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


def admit(
    session: Session,
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
    their key is returned: the caller drops its own. The name of an object that is being deleted, or is damaged, moves
    to the new one.
    """
    names = {str(digest), *map(str, aliases)}
    held = (
        select(Object.id, Object.storage_key)
        .join(Blob)
        .where(Blob.digest.in_(names), Object.state == LIVE)
        .order_by(Object.id)
        .limit(1)
        .with_for_update(of=Object)
    )
    if (row := session.execute(held).first()) is None:
        values = {"storage_key": key, "size": size, "state": LIVE, "lease_until": time.time() + LEASE_S}
        object_id = session.execute(insert(session, Object).values(values).returning(Object.id)).scalar_one()
        _hold_name(session, digest, object_id)
        if (row := session.execute(held.where(Object.id != object_id)).first()) is not None:
            session.execute(delete(Blob).where(Blob.object_id == object_id))
            session.execute(delete(Object).where(Object.id == object_id))  # the same push elsewhere was faster
    if row is not None:
        object_id, key = row
    name = insert(session, Blob).values(digest=str(digest), object_id=object_id)
    name = name.on_conflict_do_update(index_elements=[Blob.digest], set_={"object_id": object_id})
    blob_id = session.execute(name.returning(Blob.id)).scalar_one()
    link(session, repository_id, blob_id, object_id, principal)
    return key


def _hold_name(session: Session, digest: Digest, object_id: int) -> None:
    """Give the name to the object if it is free, else hold it: of pushes at once, each sees what the one before did."""
    name = insert(session, Blob).values(digest=str(digest), object_id=object_id).on_conflict_do_nothing()
    held = select(Blob.id).where(Blob.digest == str(digest)).with_for_update(key_share=True)
    for _ in range(_HOLD_TRIES):
        if session.execute(name.returning(Blob.id)).first() is not None:
            return
        if session.execute(held).first() is not None:  # none where a sweep took the old name away in between
            return
    raise StorageUnavailable("the blob is pushed and swept again and again", digest=str(digest))


def link(session: Session, repository_id: int, blob_id: int, object_id: int, principal: str | None) -> bool:
    """Link the blob, and extend both leases; False if its object is no longer live."""
    now = time.time()
    until, who = now + LEASE_S, principal or ""
    lease = update(Object).where(Object.id == object_id, Object.state == LIVE).values(lease_until=until)
    alive = session.execute(lease.returning(Object.id).execution_options(synchronize_session=False)).first()
    if alive is None:
        return False
    values = {"lease_until": until, "leased_by": who}
    row = insert(session, BlobLink).values(repository_id=repository_id, blob_id=blob_id, **values)
    is_ours = or_(BlobLink.lease_until < now, BlobLink.leased_by == who)
    shared = {"lease_until": until, "leased_by": case((is_ours, who), else_=_SEVERAL)}
    session.execute(row.on_conflict_do_update(index_elements=["repository_id", "blob_id"], set_=shared))
    digest = select(Blob.digest).where(Blob.id == blob_id).scalar_subquery()
    session.execute(  # manifests that came before their blob, on a mirror
        update(ManifestBlob)
        .where(ManifestBlob.digest == digest, ManifestBlob.blob_id.is_(None))
        .values(blob_id=blob_id)
        .execution_options(synchronize_session=False)
    )
    return True


def lock(session: Session, digest: Digest) -> int | None:
    """Hold the blob's object until the transaction ends; its id, None if there is none to hold.

    Who links, unlinks, lists in a manifest or sweeps a blob holds its object first and looks, in a statement of its
    own, afterwards: on PostgreSQL a statement does not see what was committed while it waited.
    """
    held = select(Object.id).join(Blob).where(Blob.digest == str(digest))
    held = held.with_for_update(of=[Object, Blob], key_share=True)  # the name too: it may move from a damaged object
    return session.execute(held).scalar_one_or_none()


def consume_leases(session: Session, repository_id: int, held: Mapping[int, int], principal: str | None) -> None:
    """A manifest of this principal's push took over: from now on its blobs stay because it lists them.

    held: blob id → object id, of objects that the transaction holds. A lease that others share is theirs too, and runs.
    """
    mine = (BlobLink.repository_id == repository_id, BlobLink.leased_by == (principal or ""), BlobLink.lease_until > 0)
    ids = list(held)
    for start in range(0, len(ids), _BATCH):
        batch = ids[start : start + _BATCH]
        used = update(BlobLink).where(*mine, BlobLink.blob_id.in_(batch)).values(lease_until=0.0)
        used = used.execution_options(synchronize_session=False)
        if session.execute(used.returning(BlobLink.blob_id)).first() is not None:
            settle(session, {held[blob_id] for blob_id in batch})


def settle(session: Session, object_ids: Collection[int]) -> None:
    """Let the lease of each object be the latest of its links'. The transaction holds the objects."""
    latest = (
        select(func.max(BlobLink.lease_until))
        .join(Blob, Blob.id == BlobLink.blob_id)
        .where(Blob.object_id == Object.id)
        .scalar_subquery()
    )
    change = update(Object).where(Object.id.in_(object_ids)).values(lease_until=func.coalesce(latest, 0.0))
    session.execute(change.execution_options(synchronize_session=False))


def is_referenced(session: Session, repository_id: int, digest: Digest) -> bool:
    """Does a manifest of the repository list the digest?"""
    for table in (ManifestBlob, ManifestChild):
        listed = select(func.count()).select_from(table).join(Manifest, Manifest.id == table.manifest_id)
        listed = listed.where(Manifest.repository_id == repository_id, table.digest == str(digest))
        if session.execute(listed).scalar_one():
            return True
    return False
