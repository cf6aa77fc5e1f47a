"""Repositories, blobs, manifests, tags and upload sessions."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
_DIGEST = sa.String(136)
_TIME = sa.Float(53)

_TABLES = (
    "uploads",
    "tags",
    "manifest_children",
    "manifest_blobs",
    "manifests",
    "blob_links",
    "blobs",
    "objects",
    "repositories",
    "namespaces",
)


def _ordered(length: int) -> sa.String:
    return sa.String(length).with_variant(sa.String(length, collation="C"), "postgresql")


def upgrade() -> None:
    _create_names()
    _create_bytes()
    _create_manifests()
    _create_uploads()


def downgrade() -> None:
    """Every row is gone after this; the bytes stay with the driver."""
    for table in _TABLES:
        op.drop_table(table)


def _create_names() -> None:
    op.create_table(
        "namespaces",
        sa.Column("id", _ID, nullable=False),
        sa.Column("name", _ordered(255), nullable=False),
        sa.Column("is_private", sa.Boolean(), nullable=False),
        sa.Column("created_at", _TIME, nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_namespaces")),
        sa.UniqueConstraint("name", name=op.f("uq_namespaces_name")),
    )
    op.create_table(
        "repositories",
        sa.Column("id", _ID, nullable=False),
        sa.Column("namespace_id", _ID, nullable=False),
        sa.Column("name", _ordered(255), nullable=False),
        sa.Column("created_at", _TIME, nullable=False),
        sa.ForeignKeyConstraint(
            ["namespace_id"], ["namespaces.id"], name=op.f("fk_repositories_namespace_id_namespaces")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_repositories")),
        sa.UniqueConstraint("name", name=op.f("uq_repositories_name")),
    )
    op.create_index("ix_repositories_namespace_id", "repositories", ["namespace_id"])


def _create_bytes() -> None:
    op.create_table(
        "objects",
        sa.Column("id", _ID, nullable=False),
        sa.Column("storage_key", sa.String(200), nullable=False),
        sa.Column("size", _ID, nullable=False),
        sa.Column("state", sa.String(8), nullable=False),
        sa.Column("lease_until", _TIME, nullable=False),
        sa.CheckConstraint("state IN ('live', 'deleting')", name=op.f("ck_objects_state")),
        sa.CheckConstraint("size >= 0", name=op.f("ck_objects_size")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_objects")),
        sa.UniqueConstraint("storage_key", name=op.f("uq_objects_storage_key")),
    )
    op.create_index("ix_objects_state_lease_until", "objects", ["state", "lease_until"])
    op.create_table(
        "blobs",
        sa.Column("id", _ID, nullable=False),
        sa.Column("digest", _DIGEST, nullable=False),
        sa.Column("object_id", _ID, nullable=False),
        sa.ForeignKeyConstraint(["object_id"], ["objects.id"], name=op.f("fk_blobs_object_id_objects")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_blobs")),
        sa.UniqueConstraint("digest", name=op.f("uq_blobs_digest")),
    )
    op.create_index("ix_blobs_object_id", "blobs", ["object_id"])
    op.create_table(
        "blob_links",
        sa.Column("repository_id", _ID, nullable=False),
        sa.Column("blob_id", _ID, nullable=False),
        sa.Column("lease_until", _TIME, nullable=False),
        sa.ForeignKeyConstraint(["blob_id"], ["blobs.id"], name=op.f("fk_blob_links_blob_id_blobs")),
        sa.ForeignKeyConstraint(
            ["repository_id"],
            ["repositories.id"],
            name=op.f("fk_blob_links_repository_id_repositories"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("repository_id", "blob_id", name=op.f("pk_blob_links")),
    )
    op.create_index("ix_blob_links_blob_id", "blob_links", ["blob_id"])


def _create_manifests() -> None:
    op.create_table(
        "manifests",
        sa.Column("id", _ID, nullable=False),
        sa.Column("repository_id", _ID, nullable=False),
        sa.Column("digest", _DIGEST, nullable=False),
        sa.Column("media_type", sa.String(255), nullable=False),
        sa.Column("artifact_type", sa.String(255), nullable=True),
        sa.Column("subject", _DIGEST, nullable=True),
        sa.Column("annotations", sa.JSON(none_as_null=True), nullable=True),
        sa.Column("size", sa.Integer(), nullable=False),
        sa.Column("raw", sa.LargeBinary(), nullable=False),
        sa.Column("pushed_at", _TIME, nullable=False),
        sa.ForeignKeyConstraint(
            ["repository_id"],
            ["repositories.id"],
            name=op.f("fk_manifests_repository_id_repositories"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_manifests")),
        sa.UniqueConstraint("repository_id", "digest", name=op.f("uq_manifests_repository_id_digest")),
        sa.UniqueConstraint("repository_id", "id", name=op.f("uq_manifests_repository_id_id")),
    )
    op.create_index("ix_manifests_repository_id_subject", "manifests", ["repository_id", "subject"])
    op.create_table(
        "manifest_blobs",
        sa.Column("manifest_id", _ID, nullable=False),
        sa.Column("digest", _DIGEST, nullable=False),
        sa.Column("blob_id", _ID, nullable=True),
        sa.ForeignKeyConstraint(["blob_id"], ["blobs.id"], name=op.f("fk_manifest_blobs_blob_id_blobs")),
        sa.ForeignKeyConstraint(
            ["manifest_id"], ["manifests.id"], name=op.f("fk_manifest_blobs_manifest_id_manifests"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("manifest_id", "digest", name=op.f("pk_manifest_blobs")),
    )
    op.create_index("ix_manifest_blobs_blob_id", "manifest_blobs", ["blob_id"])
    op.create_index("ix_manifest_blobs_digest", "manifest_blobs", ["digest"])
    op.create_table(
        "manifest_children",
        sa.Column("manifest_id", _ID, nullable=False),
        sa.Column("digest", _DIGEST, nullable=False),
        sa.ForeignKeyConstraint(
            ["manifest_id"],
            ["manifests.id"],
            name=op.f("fk_manifest_children_manifest_id_manifests"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("manifest_id", "digest", name=op.f("pk_manifest_children")),
    )
    op.create_index("ix_manifest_children_digest", "manifest_children", ["digest"])
    op.create_table(
        "tags",
        sa.Column("repository_id", _ID, nullable=False),
        sa.Column("name", _ordered(128), nullable=False),
        sa.Column("manifest_id", _ID, nullable=False),
        sa.Column("updated_at", _TIME, nullable=False),
        sa.ForeignKeyConstraint(
            ["repository_id", "manifest_id"],
            ["manifests.repository_id", "manifests.id"],
            name=op.f("fk_tags_repository_id_manifest_id_manifests"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["repository_id"], ["repositories.id"], name=op.f("fk_tags_repository_id_repositories"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("repository_id", "name", name=op.f("pk_tags")),
    )
    op.create_index("ix_tags_manifest_id", "tags", ["manifest_id"])


def _create_uploads() -> None:
    op.create_table(
        "uploads",
        sa.Column("id", sa.String(64), nullable=False),
        sa.Column("repository_id", _ID, nullable=False),
        sa.Column("principal", sa.String(255), nullable=True),
        sa.Column("handle", sa.Text(), nullable=False),
        sa.Column("storage_key", sa.String(200), nullable=False),
        sa.Column("offset", _ID, nullable=False),
        sa.Column("states", sa.JSON(), nullable=False),
        sa.Column("chunk_start", _ID, nullable=True),
        sa.Column("chunk_states", sa.JSON(none_as_null=True), nullable=True),
        sa.Column("chunk_end", _ID, nullable=True),
        sa.Column("writer", sa.String(32), nullable=True),
        sa.Column("writer_until", _TIME, nullable=False),
        sa.Column("started_at", _TIME, nullable=False),
        sa.Column("touched_at", _TIME, nullable=False),
        sa.Column("finished_digest", _DIGEST, nullable=True),
        sa.CheckConstraint('"offset" >= 0', name=op.f("ck_uploads_offset")),
        sa.ForeignKeyConstraint(
            ["repository_id"],
            ["repositories.id"],
            name=op.f("fk_uploads_repository_id_repositories"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_uploads")),
    )
    op.create_index("ix_uploads_repository_id", "uploads", ["repository_id"])
    op.create_index("ix_uploads_touched_at", "uploads", ["touched_at"])
