"""Which bearer token opened an upload session: it may go on with the session for a while after it expired."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("uploads", sa.Column("opened_with", sa.String(64), nullable=True))


def downgrade() -> None:
    """Sessions under way need a token that is still valid again."""
    op.drop_column("uploads", "opened_with")
