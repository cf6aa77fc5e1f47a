"""The audit trail, keys that were refused, when a token was last used."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
_REFUSAL = "the audit trail is only ever added to"


def upgrade() -> None:
    op.create_table(
        "audit",
        sa.Column("id", _ID, nullable=False),
        sa.Column("at", sa.Float(53), nullable=False),
        sa.Column("who", sa.String(128), nullable=False),
        sa.Column("what", sa.String(32), nullable=False),
        sa.Column("namespace", sa.String(255), nullable=True),
        sa.Column("repository", sa.String(255), nullable=True),
        sa.Column("reference", sa.String(255), nullable=True),
        sa.Column("detail", sa.String(500), nullable=True),
        sa.Column("address", sa.String(64), nullable=False),
        sa.Column("request_id", sa.String(64), nullable=False),
        sa.Column("count", _ID, nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_audit")),
    )
    op.create_index("ix_audit_at_id", "audit", ["at", "id"])
    op.create_index("ix_audit_what_at", "audit", ["what", "at"])
    for statement in _triggers():
        op.execute(statement)
    op.create_table(
        "refused_keys",
        sa.Column("fingerprint", sa.String(50), nullable=False),
        sa.Column("blob", sa.String(68), nullable=False),
        sa.Column("address", sa.String(64), nullable=False),
        sa.Column("wanted", sa.String(300), nullable=False),
        sa.Column("first_seen_at", sa.Float(53), nullable=False),
        sa.Column("last_seen_at", sa.Float(53), nullable=False),
        sa.Column("count", _ID, nullable=False),
        sa.PrimaryKeyConstraint("fingerprint", name=op.f("pk_refused_keys")),
    )
    op.create_index("ix_refused_keys_last_seen_at", "refused_keys", ["last_seen_at"])
    op.add_column("access_tokens", sa.Column("last_used_at", sa.Float(53), nullable=True))


def downgrade() -> None:
    """The trail is gone after this: export it first, with `tonnage audit --json`."""
    op.drop_column("access_tokens", "last_used_at")
    op.drop_table("refused_keys")
    op.drop_table("audit")  # and its trigger
    if _is_postgresql():
        op.execute("DROP FUNCTION refuse_audit_update()")


def _triggers() -> tuple[str, ...]:
    if not _is_postgresql():
        return (f"CREATE TRIGGER audit_no_update BEFORE UPDATE ON audit BEGIN SELECT RAISE(ABORT, '{_REFUSAL}'); END",)
    return (
        "CREATE FUNCTION refuse_audit_update() RETURNS trigger LANGUAGE plpgsql AS "
        f"$$ BEGIN RAISE EXCEPTION '{_REFUSAL}'; END $$",
        "CREATE TRIGGER audit_no_update BEFORE UPDATE ON audit "
        "FOR EACH STATEMENT EXECUTE FUNCTION refuse_audit_update()",
    )


def _is_postgresql() -> bool:
    return op.get_bind().dialect.name == "postgresql"
