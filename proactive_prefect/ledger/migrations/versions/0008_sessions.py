"""The session that an occurrence belongs to.

Revision ID: 0008
Revises: 0007
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    """Add the column; of those that are there no session is known."""
    op.add_column("occurrences", sa.Column("session_id", sa.Text(), nullable=True))


def downgrade() -> None:
    """Undo it."""
    op.drop_column("occurrences", "session_id")
