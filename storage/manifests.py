"""Storing a manifest: one transaction that checks what it lists and makes it, its references and its tags visible."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final, TypeVar

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from storage.blobs import consume_leases
from storage.db import insert
from storage.digest import Digest
from storage.errors import ManifestBlobUnknown, ManifestInvalid, TagMoved
from storage.manifest import Descriptor, Manifest
from storage.models import LIVE, Blob, BlobLink, ManifestBlob, ManifestChild, Object
from storage.models import Manifest as Row
from storage.models import Tag as TagRow
from storage.reference import Tag

T = TypeVar("T")

_BATCH: Final = 1000  # rows or names in one statement: SQLite and PostgreSQL bound its variables
_MAX_MISSING: Final = 100  # descriptors in one refusal


@dataclass(frozen=True, slots=True)
class Received:
    """A manifest as it came, the digest it is to be known by, and what we read in it."""

    raw: bytes
    digest: Digest
    manifest: Manifest


def store_manifest(
    session: Session,
    repository_id: int,
    received: Received,
    tags: Iterable[Tag],
    *,
    allow_sparse: bool,
    principal: str | None = None,
) -> tuple[float, dict[Tag, Digest]]:
    """Insert or renew the manifest, its reference rows and its tags, and end the push's leases.

    When it was pushed, and what those of the tags named until now that were there. Raises ManifestBlobUnknown,
    ManifestInvalid.
    """
    tags = sorted(tags, key=str)  # two pushes that make the same tags then cannot wait for each other
    manifest = received.manifest
    held = _held(session, repository_id, [blob.digest for blob in (*manifest.blobs, *manifest.children)])
    sizes = {digest: blob.size for digest, blob in held.items()}
    sizes |= _child_sizes(session, repository_id, manifest.children)
    _check_sizes((*manifest.blobs, *manifest.children), sizes)
    if not allow_sparse:
        _check_present(manifest, sizes)
    now = time.time()
    manifest_id = _upsert(session, repository_id, received, now)
    digests = dict.fromkeys(str(blob.digest) for blob in manifest.blobs)
    blobs = ({"digest": digest, "blob_id": held[digest].blob_id if digest in held else None} for digest in digests)
    _replace(session, ManifestBlob, manifest_id, blobs)
    children = dict.fromkeys(str(child.digest) for child in manifest.children)
    _replace(session, ManifestChild, manifest_id, ({"digest": child} for child in children))
    before = _named_by(session, repository_id, tags)
    for tag in tags:
        move_tag(session, repository_id, tag, manifest_id, now)
    consume_leases(session, repository_id, {one.blob_id: one.object_id for one in held.values()}, principal)
    return now, before


@dataclass(frozen=True, slots=True)
class TagCondition:
    """What a tag may name for a push to move it, as digests in text; `*` stands for any manifest.

    one_of: it must name one of these; none_of: it must name none of them. None asks nothing.
    """

    one_of: frozenset[str] | None = None
    none_of: frozenset[str] | None = None

    def allows(self, digest: str | None) -> bool:
        """digest: what the tag names; None if there is no such tag."""
        if self.one_of is not None and (digest is None or not self.one_of & {digest, "*"}):
            return False
        return self.none_of is None or digest is None or not self.none_of & {digest, "*"}


def check_tag(session: Session, repository_id: int, tag: Tag, condition: TagCondition) -> None:
    """Whether the condition allows the tag to move. The transaction holds the repository alone. Raises TagMoved."""
    named = select(Row.digest).join(TagRow, TagRow.manifest_id == Row.id)
    named = named.where(TagRow.repository_id == repository_id, TagRow.name == str(tag))
    digest = session.execute(named).scalar_one_or_none()
    if not condition.allows(digest):
        raise TagMoved("the tag does not name what the push expects", tag=str(tag), digest=digest)


def _named_by(session: Session, repository_id: int, tags: Iterable[Tag]) -> dict[Tag, Digest]:
    """What those of the tags name that are there; they name it until the transaction ends."""
    before: dict[Tag, Digest] = {}
    for batch in _batches(sorted(set(map(str, tags)))):
        query = (
            select(TagRow.name, Row.digest)
            .join(Row, Row.id == TagRow.manifest_id)
            .where(TagRow.repository_id == repository_id, TagRow.name.in_(batch))
            .order_by(TagRow.name)
            .with_for_update(of=TagRow)
        )
        before |= {Tag(name): Digest.parse(digest) for name, digest in session.execute(query)}
    return before


def move_tag(session: Session, repository_id: int, tag: Tag, manifest_id: int, now: float) -> None:
    """Let the tag name this manifest from now on; the last writer wins."""
    target = {"manifest_id": manifest_id, "updated_at": now}
    row = insert(session, TagRow).values(repository_id=repository_id, name=str(tag), **target)
    session.execute(row.on_conflict_do_update(index_elements=["repository_id", "name"], set_=target))


@dataclass(frozen=True, slots=True)
class _Held:
    """A blob that the repository links to, and that nobody sweeps before the transaction ends."""

    blob_id: int
    object_id: int
    size: int


def _held(session: Session, repository_id: int, digests: Sequence[Digest]) -> dict[str, _Held]:
    """Those of the digests that the repository links to.

    Locks their objects in the order of their ids (two pushes then cannot wait for each other), so that no sweep takes
    one of them between this look and the commit. The links are read after that, in a statement of its own: while the
    first one waited, they may have gone.
    """
    held: dict[str, _Held] = {}
    for batch in _batches(sorted(set(map(str, digests)))):
        named = select(Blob.object_id).where(Blob.digest.in_(batch))
        locked = select(Object.id).where(Object.id.in_(named), Object.state == LIVE).order_by(Object.id)
        ids = set(session.scalars(locked.with_for_update(of=Object)))
        query = (
            select(Blob.digest, Blob.id, Object.id, Object.size)
            .join_from(BlobLink, Blob, Blob.id == BlobLink.blob_id)
            .join(Object, Object.id == Blob.object_id)
            .where(BlobLink.repository_id == repository_id, Blob.digest.in_(batch), Object.state == LIVE)
        )
        held.update((digest, _Held(*found)) for digest, *found in session.execute(query) if found[1] in ids)
    return held


def _child_sizes(session: Session, repository_id: int, children: Iterable[Descriptor]) -> dict[str, int]:
    """Of those children that the repository holds as manifests; none of them goes before the transaction ends."""
    sizes: dict[str, int] = {}
    for batch in _batches(dict.fromkeys(str(child.digest) for child in children)):
        query = select(Row.digest, Row.size).where(Row.repository_id == repository_id, Row.digest.in_(batch))
        query = query.order_by(Row.id).with_for_update(key_share=True, read=True)
        sizes.update((digest, size) for digest, size in session.execute(query))
    return sizes


def _check_sizes(listed: Iterable[Descriptor], sizes: dict[str, int]) -> None:
    """Clients refuse what is not as long as its descriptor says. Raises ManifestInvalid."""
    for descriptor in listed:
        stored = sizes.get(str(descriptor.digest))
        if stored is not None and stored != descriptor.size:
            raise ManifestInvalid(
                "a descriptor has another size than what it names", digest=str(descriptor.digest), size=stored
            )


def _check_present(manifest: Manifest, sizes: dict[str, int]) -> None:
    """A child may be a manifest or, in the indexes of build caches, just a blob. Raises ManifestBlobUnknown."""
    listed = (*manifest.required_blobs, *manifest.children)
    missing = [descriptor for descriptor in listed if str(descriptor.digest) not in sizes]
    if missing:
        details = [descriptor.to_json() for descriptor in missing[:_MAX_MISSING]]
        raise ManifestBlobUnknown("the repository does not hold what the manifest lists", missing=details)


def _upsert(session: Session, repository_id: int, received: Received, now: float) -> int:
    """A repeated push renews what the client says about the same bytes."""
    raw, digest, manifest = received.raw, str(received.digest), received.manifest
    said = {
        "media_type": manifest.media_type,
        "artifact_type": manifest.artifact_type,
        "subject": str(manifest.subject.digest) if manifest.subject else None,
        "annotations": manifest.annotations if manifest.subject else None,
        "pushed_at": now,
    }
    row = insert(session, Row).values(repository_id=repository_id, digest=digest, size=len(raw), raw=raw, **said)
    row = row.on_conflict_do_update(index_elements=["repository_id", "digest"], set_=said)
    return session.execute(row.returning(Row.id)).scalar_one()


def _replace(
    session: Session,
    table: type[ManifestBlob] | type[ManifestChild],
    manifest_id: int,
    rows: Iterable[dict[str, Any]],
) -> None:
    gone = delete(table).where(table.manifest_id == manifest_id)
    session.execute(gone.execution_options(synchronize_session=False))
    for batch in _batches(rows):
        session.execute(insert(session, table), [{"manifest_id": manifest_id, **row} for row in batch])


def _batches(items: Iterable[T]) -> Iterator[list[T]]:
    remaining = iter(items)
    while batch := list(islice(remaining, _BATCH)):
        yield batch
