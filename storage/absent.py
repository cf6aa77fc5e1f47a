"""What a manifest lists and its repository does not hold: that comes later, or never."""

from __future__ import annotations

from sqlalchemy import exists, select

from storage.db import Database
from storage.digest import Digest
from storage.models import LIVE, Blob, BlobLink, Manifest, ManifestBlob, Object, Repository
from storage.reference import RepositoryName


def absent_blobs(database: Database, name: RepositoryName, digest: Digest) -> frozenset[Digest]:
    """Blobs that the manifest lists and that cannot be read in its repository; none if there is no such manifest."""
    held = exists().where(
        BlobLink.repository_id == Manifest.repository_id,
        Blob.id == BlobLink.blob_id,
        Blob.digest == ManifestBlob.digest,
        Object.id == Blob.object_id,
        Object.state == LIVE,
    )
    query = (
        select(ManifestBlob.digest)
        .join(Manifest, Manifest.id == ManifestBlob.manifest_id)
        .join(Repository, Repository.id == Manifest.repository_id)
        .where(Repository.name == str(name), Manifest.digest == str(digest))
        .where(~held.correlate(Manifest, ManifestBlob))
    )
    with database.connect() as connection:
        return frozenset(Digest.parse(each) for each in connection.execute(query).scalars())
