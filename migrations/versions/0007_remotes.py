"""What is remembered of other registries: mirrors, uploads to go on with; and sums of parts of blobs."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
_DIGEST = sa.String(136)


def _ordered(length: int) -> sa.String:
    return sa.String(length).with_variant(sa.String(length, collation="C"), "postgresql")


def _key_to(table: str, column: str, target: str) -> sa.ForeignKeyConstraint:
    name = op.f(f"fk_{table}_{column}_{target}")
    return sa.ForeignKeyConstraint([column], [f"{target}.id"], name=name, ondelete="CASCADE")


def upgrade() -> None:
    op.create_table(
        "chunk_sums",
        sa.Column("object_id", _ID, nullable=False),
        sa.Column("chunk_bytes", sa.Integer(), nullable=False),
        sa.Column("sums", sa.LargeBinary(), nullable=False),
        _key_to("chunk_sums", "object_id", "objects"),
        sa.PrimaryKeyConstraint("object_id", name=op.f("pk_chunk_sums")),
    )
    op.create_table(
        "mirrors",
        sa.Column("id", _ID, nullable=False),
        sa.Column("prefix", _ordered(255), nullable=False),
        sa.Column("upstream", sa.String(300), nullable=False),
        sa.Column("path", sa.String(255), nullable=False),
        sa.Column("ttl_s", sa.Float(53), nullable=False),
        sa.Column("patterns", sa.JSON(), nullable=False),
        sa.Column("token_path", sa.Text(), nullable=True),
        sa.Column("sync_every_s", sa.Float(53), nullable=True),
        sa.Column("sync_at", sa.Float(53), nullable=True),
        sa.Column("created_at", sa.Float(53), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_mirrors")),
        sa.UniqueConstraint("prefix", name=op.f("uq_mirrors_prefix")),
    )
    op.create_table(
        "mirror_tags",
        sa.Column("repository_id", _ID, nullable=False),
        sa.Column("name", _ordered(128), nullable=False),
        sa.Column("checked_at", sa.Float(53), nullable=False),
        _key_to("mirror_tags", "repository_id", "repositories"),
        sa.PrimaryKeyConstraint("repository_id", "name", name=op.f("pk_mirror_tags")),
    )
    op.create_table(
        "mirror_reads",
        sa.Column("repository_id", _ID, nullable=False),
        sa.Column("blob_id", _ID, nullable=False),
        sa.Column("read_at", sa.Float(53), nullable=False),
        _key_to("mirror_reads", "repository_id", "repositories"),
        _key_to("mirror_reads", "blob_id", "blobs"),
        sa.PrimaryKeyConstraint("repository_id", "blob_id", name=op.f("pk_mirror_reads")),
    )
    op.create_index(op.f("ix_mirror_reads_blob_id"), "mirror_reads", ["blob_id"])
    op.create_index(op.f("ix_mirror_reads_read_at"), "mirror_reads", ["read_at"])
    op.create_table(
        "remote_uploads",
        sa.Column("server", sa.String(300), nullable=False),
        sa.Column("repository", sa.String(255), nullable=False),
        sa.Column("digest", _DIGEST, nullable=False),
        sa.Column("url", sa.Text(), nullable=False),
        sa.Column("saved_at", sa.Float(53), nullable=False),
        sa.PrimaryKeyConstraint("server", "repository", "digest", name=op.f("pk_remote_uploads")),
    )
    op.create_index(op.f("ix_remote_uploads_saved_at"), "remote_uploads", ["saved_at"])


def downgrade() -> None:
    """What mirrors fetched stays as if it had been pushed; sums are made again, uploads elsewhere begin anew."""
    for table in ("remote_uploads", "mirror_reads", "mirror_tags", "mirrors", "chunk_sums"):
        op.drop_table(table)
