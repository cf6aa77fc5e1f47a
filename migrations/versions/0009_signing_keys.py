"""The public halves of the keys that nodes sign with: several nodes believe each other's tokens and addresses."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "signing_keys",
        sa.Column("id", sa.String(16), nullable=False),
        sa.Column("blob", sa.String(68), nullable=False),
        sa.Column("seen_at", sa.Float(53), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_signing_keys")),
    )
    op.create_index(op.f("ix_signing_keys_seen_at"), "signing_keys", ["seen_at"])


def downgrade() -> None:
    """Each node believes what it signed itself."""
    op.drop_table("signing_keys")
