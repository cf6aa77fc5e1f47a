"""Blobs: bytes named by digest, seen through the repositories that hold a link to them."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import BinaryIO, Final

from sqlalchemy import Row, Select, bindparam, delete, func, select, update
from sqlalchemy.orm import Session

from storage import layout
from storage.db import Database, insert
from storage.digest import ALGORITHMS, Digest
from storage.drivers.protocol import Driver
from storage.errors import BlobReferenced, BlobUnknown
from storage.models import LIVE, Blob, BlobLink, Manifest, ManifestBlob, ManifestChild, Object, Repository
from storage.namespaces import ensure_repository, require_repository
from storage.reference import RepositoryName

LEASE_S: Final = 24 * 3600.0  # must exceed the longest push: a client that was told "exists" never sends the bytes
_MAX_HOLDERS: Final = 100


@dataclass(frozen=True, slots=True)
class BlobInfo:
    """A blob that the repository may serve. `key` is the driver's."""

    digest: Digest
    size: int
    key: str


def _linked() -> Select[int, str, int, float, float]:
    return (
        select(Object.id, Object.storage_key, Object.size, Object.lease_until, BlobLink.lease_until)
        .join_from(Repository, BlobLink, BlobLink.repository_id == Repository.id)
        .join(Blob, Blob.id == BlobLink.blob_id)
        .join(Object, Object.id == Blob.object_id)
        .where(Repository.name == bindparam("name"), Blob.digest == bindparam("digest"), Object.state == LIVE)
    )


_LINKED: Final = _linked()


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
        return self._driver.open(self.stat(name, digest).key, start=start)

    def local_path(self, name: RepositoryName, digest: Digest) -> Path | None:
        """The file to map, where the driver keeps files. Raises BlobUnknown, NameUnknown."""
        return self._driver.local_path(self.stat(name, digest).key)

    def download_url(self, blob: BlobInfo, *, expires_s: int) -> str | None:
        """Where a client may fetch the blob itself; None means "stream it through us"."""
        return self._driver.download_url(blob.key, expires_s=expires_s)

    def put(self, name: RepositoryName, data: bytes, *, algorithm: str = "sha256") -> BlobInfo:
        """Store small bytes that are already in memory."""
        digests = {each: Digest.of(data, each) for each in ALGORITHMS}
        key = layout.new_blob_key()
        self._driver.write(key, BytesIO(data))
        with self._database.write() as session:
            repository_id = ensure_repository(session, name)
            kept = admit(session, repository_id, digests[algorithm], digests.values(), key=key, size=len(data))
        if kept != key:
            self._driver.delete(key)
        return BlobInfo(digests[algorithm], len(data), kept)

    def mount(self, digest: Digest, *, source: RepositoryName, into: RepositoryName) -> bool:
        """Link a blob of `source` into another repository, with a new lease; False if `source` does not hold it."""
        with self._database.write() as session:
            row = session.execute(
                _LINKED.with_for_update(read=True, of=Object), {"name": str(source), "digest": str(digest)}
            ).first()
            if row is None:
                return False
            blob_id = session.execute(select(Blob.id).where(Blob.digest == str(digest))).scalar_one()
            link(session, ensure_repository(session, into), blob_id, row.id)
            return True

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
            if is_referenced(session, repository_id, digest):
                raise BlobReferenced("a manifest of the repository needs the blob", digest=str(digest))
            blob_ids = select(Blob.id).join(Object).where(Blob.digest == str(digest), Object.state == LIVE)
            gone = delete(BlobLink).where(BlobLink.repository_id == repository_id, BlobLink.blob_id.in_(blob_ids))
            gone = gone.execution_options(synchronize_session=False)
            if session.execute(gone.returning(BlobLink.blob_id)).first() is None:
                raise BlobUnknown("no such blob in this repository", digest=str(digest))

    def renew_lease(self, name: RepositoryName, digest: Digest) -> BlobInfo:
        """`stat`, and a promise that the blob stays while the client acts on the answer.

        Writes only when less than half of the lease is left. Raises BlobUnknown, NameUnknown.
        """
        row = self._find(name, digest)
        if min(row[3], row[4]) < time.time() + LEASE_S / 2:
            with self._database.write() as session:
                blob_id = session.execute(select(Blob.id).where(Blob.digest == str(digest))).scalar_one()
                if not link(session, require_repository(session, name), blob_id, row.id):
                    raise BlobUnknown("no such blob in this repository", digest=str(digest))
        return BlobInfo(digest, row.size, row.storage_key)

    def _find(self, name: RepositoryName, digest: Digest) -> Row[int, str, int, float, float]:
        with self._database.connect() as connection:
            row = connection.execute(_LINKED, {"name": str(name), "digest": str(digest)}).first()
            if row is None:
                require_repository(connection, name)
                raise BlobUnknown("no such blob in this repository", digest=str(digest))
            return row


def admit(
    session: Session, repository_id: int, digest: Digest, aliases: Iterable[Digest], *, key: str, size: int
) -> str:
    """Make durable bytes at `key` a blob of the repository, leased; the key that is kept.

    Bytes that are already here under `digest`, or under an alias (another digest of the same bytes), are linked and
    their key is returned: the caller drops its own. The name of an object that is being deleted moves to the new one.
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
    else:
        object_id, key = row
    name = insert(session, Blob).values(digest=str(digest), object_id=object_id)
    name = name.on_conflict_do_update(index_elements=[Blob.digest], set_={"object_id": object_id})
    blob_id = session.execute(name.returning(Blob.id)).scalar_one()
    link(session, repository_id, blob_id, object_id)
    return key


def link(session: Session, repository_id: int, blob_id: int, object_id: int) -> bool:
    """Link the blob, and extend both leases; False if its object is no longer live."""
    until = time.time() + LEASE_S
    lease = update(Object).where(Object.id == object_id, Object.state == LIVE).values(lease_until=until)
    alive = session.execute(lease.returning(Object.id).execution_options(synchronize_session=False)).first()
    if alive is None:
        return False
    row = insert(session, BlobLink).values(repository_id=repository_id, blob_id=blob_id, lease_until=until)
    row = row.on_conflict_do_update(index_elements=["repository_id", "blob_id"], set_={"lease_until": until})
    session.execute(row)
    digest = select(Blob.digest).where(Blob.id == blob_id).scalar_subquery()
    session.execute(  # manifests that came before their blob, on a mirror
        update(ManifestBlob)
        .where(ManifestBlob.digest == digest, ManifestBlob.blob_id.is_(None))
        .values(blob_id=blob_id)
        .execution_options(synchronize_session=False)
    )
    return True


def is_referenced(session: Session, repository_id: int, digest: Digest) -> bool:
    """Does a manifest of the repository list the digest?"""
    for table in (ManifestBlob, ManifestChild):
        listed = select(func.count()).select_from(table).join(Manifest, Manifest.id == table.manifest_id)
        listed = listed.where(Manifest.repository_id == repository_id, table.digest == str(digest))
        if session.execute(listed).scalar_one():
            return True
    return False
