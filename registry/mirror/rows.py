"""Which of the store's rows are the mirrors' own: conditions and queries."""

from __future__ import annotations

from sqlalchemy import ColumnElement, ColumnExpressionArgument, Select, and_, exists, func, or_, select
from sqlalchemy.orm import aliased

from registry.mirror.models import Mirror, MirrorTag
from registry.remotes.fetch import MARKER
from storage.models import Manifest, ManifestBlob, ManifestChild, Repository, Tag, Upload


def is_mirrored(repository_id: ColumnExpressionArgument[int]) -> ColumnElement[bool]:
    """Whether the repository lies below the prefix of a mirror."""
    below = and_(Repository.name > Mirror.prefix + "/", Repository.name < Mirror.prefix + "0")  # "0" follows "/"
    covered = exists().where(Repository.id == repository_id, or_(Repository.name == Mirror.prefix, below))
    return covered.correlate_except(Repository, Mirror)


def is_staged() -> ColumnElement[bool]:
    """Of an `Upload`: a fetch of a mirror's that has not become a blob."""
    is_fetch = Upload.opened_with.startswith(MARKER, autoescape=True)
    return and_(is_fetch, Upload.finished_digest.is_(None), is_mirrored(Upload.repository_id))


def unnamed_manifests(before: float) -> Select[str, str]:
    """Repository and digest of those, stored before then, that are of no use to anybody here."""
    parent = aliased(Manifest)
    tagged = exists().where(Tag.manifest_id == Manifest.id)
    listed = exists().where(
        ManifestChild.digest == Manifest.digest,
        parent.id == ManifestChild.manifest_id,
        parent.repository_id == Manifest.repository_id,
        parent.id != Manifest.id,
    )
    is_named = or_(tagged.correlate(Manifest), listed.correlate(Manifest))
    return (
        select(Repository.name, Manifest.digest)
        .join(Repository, Repository.id == Manifest.repository_id)
        .where(is_mirrored(Manifest.repository_id), Manifest.pushed_at < before, ~is_named, ~_leads_to_blobs())
        .order_by(Manifest.id)
    )


def unasked_tags(before: float) -> Select[str, str]:
    """Repository and name of tags that were last asked for upstream before then, and of which no blob is here."""
    asked_at = func.coalesce(MirrorTag.checked_at, Manifest.pushed_at)
    noted = and_(MirrorTag.repository_id == Tag.repository_id, MirrorTag.name == Tag.name)
    return (
        select(Repository.name, Tag.name)
        .join(Repository, Repository.id == Tag.repository_id)
        .join(Manifest, Manifest.id == Tag.manifest_id)
        .outerjoin(MirrorTag, noted)
        .where(is_mirrored(Tag.repository_id), asked_at < before, ~_leads_to_blobs())
        .order_by(Tag.repository_id, Tag.name)
    )


def _leads_to_blobs() -> ColumnElement[bool]:
    """Of a `Manifest`: a blob that it lists is here, or one of a manifest that it lists."""
    child = aliased(Manifest)
    own = exists().where(ManifestBlob.manifest_id == Manifest.id, ManifestBlob.blob_id.is_not(None))
    below = exists().where(
        ManifestChild.manifest_id == Manifest.id,
        child.digest == ManifestChild.digest,
        child.repository_id == Manifest.repository_id,
        ManifestBlob.manifest_id == child.id,
        ManifestBlob.blob_id.is_not(None),
    )
    return or_(own.correlate(Manifest), below.correlate(Manifest))
