"""Whose push a lease belongs to; objects whose bytes are damaged."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
_STATE = "ck_objects_state"


def upgrade() -> None:
    """Leases from before belong to nobody: they end by their time."""
    op.add_column("blob_links", sa.Column("leased_by", sa.String(255), nullable=True))
    _allow_states("state IN ('live', 'deleting')", "state IN ('live', 'deleting', 'damaged')")


def downgrade() -> None:
    """Damaged objects are live again, as the code of before had them."""
    op.execute("UPDATE objects SET state = 'live' WHERE state = 'damaged'")
    _allow_states("state IN ('live', 'deleting', 'damaged')", "state IN ('live', 'deleting')")
    op.drop_column("blob_links", "leased_by")


def _allow_states(before: str, after: str) -> None:
    """SQLite changes a constraint by copying the table, so it must be told all of it."""
    with op.batch_alter_table("objects", copy_from=_objects(before)) as batch:
        batch.drop_constraint(op.f(_STATE), type_="check")
        batch.create_check_constraint(op.f(_STATE), after)


def _objects(states: str) -> sa.Table:
    return sa.Table(
        "objects",
        sa.MetaData(),
        sa.Column("id", _ID, nullable=False),
        sa.Column("storage_key", sa.String(200), nullable=False),
        sa.Column("size", _ID, nullable=False),
        sa.Column("state", sa.String(8), nullable=False),
        sa.Column("lease_until", sa.Float(53), nullable=False),
        sa.CheckConstraint(states, name=op.f(_STATE)),
        sa.CheckConstraint("size >= 0", name=op.f("ck_objects_size")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_objects")),
        sa.UniqueConstraint("storage_key", name=op.f("uq_objects_storage_key")),
        sa.Index("ix_objects_state_lease_until", "state", "lease_until"),
    )
