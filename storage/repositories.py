"""What a repository can do: keep manifests byte for byte, move tags over them, and list what it holds."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Select, bindparam, delete, exists, func, or_, select, tuple_

from storage.db import Database
from storage.digest import Digest
from storage.errors import DigestInvalid, ManifestUnknown
from storage.manifest import Manifest as Parsed
from storage.manifests import Received, store_manifest
from storage.models import Manifest, Namespace, Repository
from storage.models import Tag as TagRow
from storage.namespaces import ensure_repository, require_repository
from storage.reference import RepositoryName, Tag

MAX_PAGE: Final = 10_000
MAX_REFERRERS: Final = 10_000


@dataclass(frozen=True, slots=True)
class StoredManifest:
    """A manifest as it was pushed: `raw` is served byte for byte, with exactly this media type."""

    digest: Digest
    media_type: str
    raw: bytes
    subject: Digest | None
    pushed_at: float


@dataclass(frozen=True, slots=True)
class TaggedManifest:
    """One tag of the store and what it names."""

    repository: RepositoryName
    tag: Tag
    digest: Digest
    media_type: str
    updated_at: float


_COLUMNS: Final = (Manifest.digest, Manifest.media_type, Manifest.raw, Manifest.subject, Manifest.pushed_at)
_BY_DIGEST: Final = (
    select(*_COLUMNS)
    .join(Repository, Repository.id == Manifest.repository_id)
    .where(Repository.name == bindparam("name"), Manifest.digest == bindparam("reference"))
)
_BY_TAG: Final = (
    select(*_COLUMNS)
    .join_from(Repository, TagRow, TagRow.repository_id == Repository.id)
    .join(Manifest, Manifest.id == TagRow.manifest_id)
    .where(Repository.name == bindparam("name"), TagRow.name == bindparam("reference"))
)


class Repositories:
    """Every repository of the store; one comes to be with its first upload or manifest."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def put_manifest(
        self,
        name: RepositoryName,
        reference: Tag | Digest,
        raw: bytes,
        content_type: str | None = None,
        *,
        tags: Iterable[Tag] = (),
        allow_sparse: bool = False,
        principal: str | None = None,
    ) -> StoredManifest:
        """Store the manifest and move its tags, all or nothing; the same bytes again are welcome.

        A tag as reference names it by sha256. allow_sparse: what it lists need not be here. principal: whose push this
        ends; the leases that it took out on the manifest's blobs end with it.
        Raises DigestInvalid, ManifestInvalid, ManifestTooLarge, ManifestBlobUnknown. Spec: "Pushing Manifests".
        """
        manifest = Parsed.parse(raw, content_type)
        digest = Digest.of(raw, reference.algorithm if isinstance(reference, Digest) else "sha256")
        if isinstance(reference, Digest) and digest != reference:
            raise DigestInvalid("the manifest has another digest", digest=str(reference))
        all_tags = dict.fromkeys((*((reference,) if isinstance(reference, Tag) else ()), *tags))
        with self._database.write() as session:
            repository_id = ensure_repository(session, name)
            received = Received(raw, digest, manifest)
            now = store_manifest(
                session, repository_id, received, all_tags, allow_sparse=allow_sparse, principal=principal
            )
        subject = manifest.subject.digest if manifest.subject else None
        return StoredManifest(digest, manifest.media_type, raw, subject, now)

    def get_manifest(self, name: RepositoryName, reference: Tag | Digest) -> StoredManifest:
        """Raises ManifestUnknown, NameUnknown."""
        query = _BY_TAG if isinstance(reference, Tag) else _BY_DIGEST
        with self._database.connect() as connection:
            row = connection.execute(query, {"name": str(name), "reference": str(reference)}).first()
            if row is None:
                require_repository(connection, name)
                raise ManifestUnknown("no such manifest or tag in this repository", reference=str(reference))
        digest, media_type, raw, subject, pushed_at = row
        return StoredManifest(
            Digest.parse(digest), media_type, raw, Digest.parse(subject) if subject else None, pushed_at
        )

    def delete_manifest(self, name: RepositoryName, reference: Tag | Digest) -> None:
        """A tag goes alone; a manifest goes with all tags on it. Raises ManifestUnknown, NameUnknown."""
        with self._database.write() as session:
            repository_id = require_repository(session, name)
            if isinstance(reference, Tag):
                gone = delete(TagRow).where(TagRow.repository_id == repository_id, TagRow.name == str(reference))
                count = session.execute(gone.returning(TagRow.name)).first()
            else:
                whole = delete(Manifest).where(
                    Manifest.repository_id == repository_id, Manifest.digest == str(reference)
                )
                count = session.execute(whole.returning(Manifest.digest)).first()
            if count is None:
                raise ManifestUnknown("no such manifest or tag in this repository", reference=str(reference))

    def resolve_tag(self, name: RepositoryName, tag: Tag) -> Tag:
        """The tag as it is stored: exactly, else the only or first one that differs in case alone.

        Raises ManifestUnknown, NameUnknown.
        """
        with self._database.connect() as connection:
            repository_id = require_repository(connection, name)
            query = (
                select(TagRow.name)
                .where(TagRow.repository_id == repository_id, func.lower(TagRow.name) == str(tag).lower())
                .order_by(TagRow.name != str(tag), TagRow.name)
                .limit(1)
            )
            found = connection.execute(query).scalar_one_or_none()
        if found is None:
            raise ManifestUnknown("no such tag in this repository", reference=str(tag))
        return Tag(found)

    def tags(self, name: RepositoryName, *, n: int | None = None, last: str | None = None) -> tuple[list[str], bool]:
        """Tags after `last` in byte order, at most `n`; are there more? Raises NameUnknown. Spec: "Listing Tags"."""
        query = select(TagRow.name).order_by(TagRow.name)
        with self._database.connect() as connection:
            query = query.where(TagRow.repository_id == require_repository(connection, name))
            if last is not None:
                query = query.where(TagRow.name > _searchable(last))
            limit = _page(n)
            return _cut(connection.execute(query.limit(limit + 1)).scalars().all(), limit)

    def catalog(
        self, *, n: int | None = None, last: str | None = None, private: Collection[str] | None = None
    ) -> tuple[list[str], bool]:
        """Repositories with a manifest, after `last` in byte order, at most `n`; are there more?

        private: private namespaces that the caller may see beside the public ones; None shows all.
        """
        query = select(Repository.name).where(exists().where(Manifest.repository_id == Repository.id))
        if private is not None:
            readable = or_(Namespace.is_private.is_(False), Namespace.name.in_(private))
            query = query.join(Namespace).where(readable)
        if last is not None:
            query = query.where(Repository.name > _searchable(last))
        limit = _page(n)
        with self._database.connect() as connection:
            found = connection.execute(query.order_by(Repository.name).limit(limit + 1)).scalars().all()
        return _cut(found, limit)

    def referrers(self, name: RepositoryName, digest: Digest, artifact_type: str | None = None) -> list[dict[str, Any]]:
        """Descriptors of the manifests whose subject is `digest`, oldest first; empty for anything unknown.

        Spec: "Listing Referrers".
        """
        columns = (Manifest.media_type, Manifest.digest, Manifest.size, Manifest.artifact_type, Manifest.annotations)
        query: Select[*tuple[Any, ...]] = (
            select(*columns)
            .join(Repository, Repository.id == Manifest.repository_id)
            .where(Repository.name == str(name), Manifest.subject == str(digest))
            .order_by(Manifest.id)
            .limit(MAX_REFERRERS)
        )
        if artifact_type is not None:
            query = query.where(Manifest.artifact_type == _searchable(artifact_type))
        with self._database.connect() as connection:
            return [_descriptor(*row) for row in connection.execute(query)]

    def tagged(self, *, after: tuple[RepositoryName, Tag] | None = None, limit: int = 1000) -> list[TaggedManifest]:
        """Tags of all repositories with what they name, by repository and tag, beginning behind `after`."""
        query = (
            select(Repository.name, TagRow.name, Manifest.digest, Manifest.media_type, TagRow.updated_at)
            .join_from(Repository, TagRow, TagRow.repository_id == Repository.id)
            .join(Manifest, Manifest.id == TagRow.manifest_id)
            .order_by(Repository.name, TagRow.name)
            .limit(min(limit, MAX_PAGE))
        )
        if after is not None:
            query = query.where(tuple_(Repository.name, TagRow.name) > tuple_(str(after[0]), str(after[1])))
        with self._database.connect() as connection:
            return [
                TaggedManifest(RepositoryName(name), Tag(tag), Digest.parse(digest), media_type, updated_at)
                for name, tag, digest, media_type, updated_at in connection.execute(query)
            ]


def _descriptor(
    media_type: str, digest: str, size: int, artifact_type: str | None, annotations: dict[str, str] | None
) -> dict[str, Any]:
    descriptor: dict[str, Any] = {"mediaType": media_type, "digest": digest, "size": size}
    if artifact_type:
        descriptor["artifactType"] = artifact_type
    if annotations:
        descriptor["annotations"] = annotations
    return descriptor


def _page(n: int | None) -> int:
    return MAX_PAGE if n is None else max(0, min(n, MAX_PAGE))


def _cut(found: Sequence[str], limit: int) -> tuple[list[str], bool]:
    """The page, and whether the extra row was there; a page of nothing has no next one."""
    return list(found[:limit]), len(found) > limit > 0


def _searchable(text: str) -> str:
    """Hostile text as something both databases can compare: PostgreSQL refuses NUL and lone surrogates."""
    return text.encode(errors="replace").decode().replace("\0", "")
