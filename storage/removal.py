"""Taking a model out of a repository: its tag, and what only that tag kept."""

from __future__ import annotations

from typing import Final

from sqlalchemy import delete, exists, select
from sqlalchemy.orm import Session

from storage.digest import Digest
from storage.errors import ManifestUnknown
from storage.models import Manifest, ManifestBlob, ManifestChild, Tag
from storage.reference import Tag as TagName

_MAX_MANIFESTS: Final = 10_000  # of one index and what it lists


def remove_tagged(session: Session, repository_id: int, tag: TagName) -> set[str]:
    """Delete the tag and every manifest that nothing names any more; the digests of the blobs they listed.

    A manifest stays while another tag names it or another manifest lists it. Raises ManifestUnknown.
    """
    gone = delete(Tag).where(Tag.repository_id == repository_id, Tag.name == str(tag)).returning(Tag.manifest_id)
    first = session.execute(gone.execution_options(synchronize_session=False)).scalar_one_or_none()
    if first is None:
        raise ManifestUnknown("no such manifest or tag in this repository", reference=str(tag))
    return _drop_unneeded(session, repository_id, first)


def remove_untagged(session: Session, repository_id: int, digest: Digest) -> set[str]:
    """Delete the manifest, and what it alone kept, unless something still names it; digests of the blobs listed."""
    named = select(Manifest.id).where(Manifest.repository_id == repository_id, Manifest.digest == str(digest))
    found = session.execute(named).scalar_one_or_none()
    return _drop_unneeded(session, repository_id, found) if found is not None else set()


def _drop_unneeded(session: Session, repository_id: int, first: int) -> set[str]:
    blobs, waiting, removed = set[str](), [first], 0
    while waiting and removed < _MAX_MANIFESTS:
        manifest_id = waiting.pop()
        # Held before we look: a push that names it waits, or we wait for the push and then see its tag.
        session.execute(select(Manifest.id).where(Manifest.id == manifest_id).with_for_update())
        if _is_needed(session, repository_id, manifest_id):
            continue
        blobs.update(session.scalars(select(ManifestBlob.digest).where(ManifestBlob.manifest_id == manifest_id)))
        children = select(ManifestChild.digest).where(ManifestChild.manifest_id == manifest_id)
        listed = select(Manifest.id).where(Manifest.repository_id == repository_id, Manifest.digest.in_(children))
        waiting.extend(session.scalars(listed).all())
        whole = delete(Manifest).where(Manifest.id == manifest_id)
        session.execute(whole.execution_options(synchronize_session=False))
        removed += 1
    return blobs


def _is_needed(session: Session, repository_id: int, manifest_id: int) -> bool:
    """Does a tag name the manifest, or another manifest of the repository list it?"""
    tagged = exists().where(Tag.repository_id == repository_id, Tag.manifest_id == manifest_id)
    digest = select(Manifest.digest).where(Manifest.id == manifest_id).scalar_subquery()
    parent = (
        exists()
        .where(ManifestChild.digest == digest, ManifestChild.manifest_id == Manifest.id)
        .where(Manifest.repository_id == repository_id, Manifest.id != manifest_id)
    )
    return bool(session.execute(select(tagged | parent)).scalar_one())
