"""How an upload session is cut into parts that go straight to the object store."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("uploads", sa.Column("direct", sa.JSON(), nullable=True))


def downgrade() -> None:
    """Such sessions under way have no byte any more that can be reached; they begin anew."""
    op.drop_column("uploads", "direct")
