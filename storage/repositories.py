"""What a repository can do: keep manifests byte for byte, and move tags over them; what it lists is in `listing`."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from sqlalchemy import bindparam, delete, func, select

from storage.db import HotQuery
from storage.digest import Digest
from storage.errors import DigestInvalid, ManifestUnknown
from storage.listing import Lists
from storage.manifest import Manifest as Parsed
from storage.manifests import Received, TagCondition, check_tag, store_manifest
from storage.models import Manifest, Repository
from storage.models import Tag as TagRow
from storage.namespaces import ensure_repository, require_repository
from storage.reference import RepositoryName, Tag
from storage.removal import remove_tagged, remove_untagged
from storage.retry import retried


@dataclass(frozen=True, slots=True)
class StoredManifest:
    """A manifest as it was pushed: `raw` is served byte for byte, with exactly this media type.

    replaced: of one that has just been put, its tags that named another manifest or this one before, and which.
    """

    digest: Digest
    media_type: str
    raw: bytes
    subject: Digest | None
    pushed_at: float
    replaced: tuple[tuple[Tag, Digest], ...] = field(default=(), compare=False)


_COLUMNS: Final = (Manifest.digest, Manifest.media_type, Manifest.raw, Manifest.subject, Manifest.pushed_at)
_BY_DIGEST: Final = HotQuery(
    select(*_COLUMNS)
    .join(Repository, Repository.id == Manifest.repository_id)
    .where(Repository.name == bindparam("name"), Manifest.digest == bindparam("reference"))
)
_BY_TAG: Final = HotQuery(
    select(*_COLUMNS)
    .join_from(Repository, TagRow, TagRow.repository_id == Repository.id)
    .join(Manifest, Manifest.id == TagRow.manifest_id)
    .where(Repository.name == bindparam("name"), TagRow.name == bindparam("reference"))
)


class Repositories(Lists):
    """Every repository of the store; one comes to be with its first upload or manifest."""

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
        condition: TagCondition | None = None,
    ) -> StoredManifest:
        """Store the manifest and move its tags, all or nothing; the same bytes again are welcome.

        A tag as reference names it by sha256. allow_sparse: what it lists need not be here. principal: whose push this
        ends; the leases that it took out on the manifest's blobs end with it. condition: on the tag that is the
        reference.
        Raises DigestInvalid, ManifestInvalid, ManifestTooLarge, ManifestBlobUnknown, TagMoved.
        Spec: "Pushing Manifests".
        """
        manifest = Parsed.parse(raw, content_type)
        digest = Digest.of(raw, reference.algorithm if isinstance(reference, Digest) else "sha256")
        if isinstance(reference, Digest) and digest != reference:
            raise DigestInvalid("the manifest has another digest", digest=str(reference))
        first = (reference,) if isinstance(reference, Tag) else ()
        received, all_tags = Received(raw, digest, manifest), list(dict.fromkeys((*first, *tags)))
        on_tag = (first[0], condition) if first and condition is not None else None
        now, before = self._store(name, received, all_tags, on_tag, allow_sparse=allow_sparse, principal=principal)
        subject = manifest.subject.digest if manifest.subject else None
        return StoredManifest(digest, manifest.media_type, raw, subject, now, tuple(before.items()))

    @retried
    def _store(
        self,
        name: RepositoryName,
        received: Received,
        tags: list[Tag],
        on_tag: tuple[Tag, TagCondition] | None,
        *,
        allow_sparse: bool,
        principal: str | None,
    ) -> tuple[float, dict[Tag, Digest]]:
        with self._database.write() as session:
            # alone: a tag that is not there has no row of its own to hold
            repository_id = ensure_repository(session, name, alone=on_tag is not None)
            if on_tag is not None:
                check_tag(session, repository_id, *on_tag)
            return store_manifest(
                session, repository_id, received, tags, allow_sparse=allow_sparse, principal=principal
            )

    def get_manifest(self, name: RepositoryName, reference: Tag | Digest) -> StoredManifest:
        """Raises ManifestUnknown, NameUnknown."""
        query = _BY_TAG if isinstance(reference, Tag) else _BY_DIGEST
        row = self._database.first(query, name=str(name), reference=str(reference))
        if row is None:
            with self._database.connect() as connection:
                require_repository(connection, name)
            raise ManifestUnknown("no such manifest or tag in this repository", reference=str(reference))
        digest, media_type, raw, subject, pushed_at = row
        return StoredManifest(
            Digest.parse(digest), media_type, raw, Digest.parse(subject) if subject else None, pushed_at
        )

    @retried
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

    @retried
    def remove_model(self, name: RepositoryName, tag: Tag) -> set[str]:
        """Delete the tag and the manifests that it alone kept; digests of blobs that may now be reclaimed.

        Raises ManifestUnknown, NameUnknown.
        """
        with self._database.write() as session:
            return remove_tagged(session, require_repository(session, name), tag)

    @retried
    def remove_untagged(self, name: RepositoryName, digest: Digest) -> set[str]:
        """Delete a manifest that no tag and no index names any more, and the manifests that it alone kept.

        Digests of blobs that may now be reclaimed; none where it is still needed, or not there. Raises NameUnknown.
        """
        with self._database.write() as session:
            return remove_untagged(session, require_repository(session, name), digest)

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
