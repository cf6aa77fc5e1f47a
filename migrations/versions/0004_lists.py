"""What lists show of a manifest, read once; referrers in the order of their lists."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
_BEFORE, _AFTER = "ix_manifests_repository_id_subject", "ix_manifests_repository_id_subject_id_artifact_type"
_HAS_SUBJECT = sa.text("subject IS NOT NULL")


def upgrade() -> None:
    """Summaries are made when lists are first asked for."""
    op.create_table(
        "manifest_summaries",
        sa.Column("manifest_id", _ID, nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("text", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(
            ["manifest_id"],
            ["manifests.id"],
            name=op.f("fk_manifest_summaries_manifest_id_manifests"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("manifest_id", name=op.f("pk_manifest_summaries")),
    )
    op.create_index(
        _AFTER,
        "manifests",
        ["repository_id", "subject", "id", "artifact_type"],
        sqlite_where=_HAS_SUBJECT,
        postgresql_where=_HAS_SUBJECT,
    )
    op.drop_index(_BEFORE, "manifests")


def downgrade() -> None:
    """Nothing is lost: what summaries say stands in the manifests."""
    op.create_index(_BEFORE, "manifests", ["repository_id", "subject"])
    op.drop_index(_AFTER, "manifests")
    op.drop_table("manifest_summaries")
