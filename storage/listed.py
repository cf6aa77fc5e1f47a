"""Which manifests of a repository list a blob, whether or not it is here."""

from __future__ import annotations

from typing import Final

from sqlalchemy import bindparam, select

from storage.db import Database
from storage.digest import Digest
from storage.models import Manifest, ManifestBlob, Repository
from storage.reference import RepositoryName

_MOST: Final = 8  # the newest; each may have megabytes

_LISTING: Final = (
    select(Manifest.raw, Manifest.media_type)
    .join(ManifestBlob, ManifestBlob.manifest_id == Manifest.id)
    .join(Repository, Repository.id == Manifest.repository_id)
    .where(Repository.name == bindparam("name"), ManifestBlob.digest == bindparam("digest"))
    .order_by(Manifest.id.desc())
    .limit(_MOST)
)


def manifests_with(database: Database, name: RepositoryName, digest: Digest) -> list[tuple[bytes, str]]:
    """Bytes and media type of some manifests of the repository that list the blob, the newest first."""
    with database.connect() as connection:
        rows = connection.execute(_LISTING, {"name": str(name), "digest": str(digest)})
        return [(row[0], row[1]) for row in rows]
