"""Grants of keys, access tokens, nonces of signed requests."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "key_grants",
        sa.Column("namespace_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("fingerprint", sa.String(50), nullable=False),
        sa.Column("blob", sa.String(68), nullable=False),
        sa.Column("role", sa.String(8), nullable=False),
        sa.Column("comment", sa.String(255), nullable=False),
        sa.Column("created_at", sa.Float(53), nullable=False),
        sa.CheckConstraint("role IN ('pull', 'push', 'admin')", name=op.f("ck_key_grants_role")),
        sa.ForeignKeyConstraint(
            ["namespace_id"],
            ["namespaces.id"],
            name=op.f("fk_key_grants_namespace_id_namespaces"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("namespace_id", "fingerprint", name=op.f("pk_key_grants")),
    )
    op.create_index("ix_key_grants_fingerprint", "key_grants", ["fingerprint"])
    op.create_table(
        "access_tokens",
        sa.Column("id", sa.String(16), nullable=False),
        sa.Column("name", sa.String(64), nullable=False),
        sa.Column("secret_sha256", sa.LargeBinary(32), nullable=False),
        sa.Column("scopes", sa.String(64), nullable=False),
        sa.Column("namespaces", sa.Text(), nullable=True),
        sa.Column("created_at", sa.Float(53), nullable=False),
        sa.Column("expires_at", sa.Float(53), nullable=True),
        sa.Column("revoked_at", sa.Float(53), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_access_tokens")),
        sa.UniqueConstraint("name", name=op.f("uq_access_tokens_name")),
    )
    op.create_table(
        "used_nonces",
        sa.Column("fingerprint", sa.String(50), nullable=False),
        sa.Column("nonce", sa.String(86), nullable=False),
        sa.Column("seen_at", sa.Float(53), nullable=False),
        sa.PrimaryKeyConstraint("fingerprint", "nonce", name=op.f("pk_used_nonces")),
    )
    op.create_index("ix_used_nonces_seen_at", "used_nonces", ["seen_at"])


def downgrade() -> None:
    """Grants and tokens are gone after this; the models stay."""
    op.drop_table("used_nonces")
    op.drop_table("access_tokens")
    op.drop_table("key_grants")
