"""Indexes by which what is open, missed or at work is found among millions of what has ended.

Revision ID: 0010
Revises: 0009
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"

OPEN = sa.text("outcome IN ('expected', 'missed', 'approved')")


def upgrade() -> None:
    """Index every outcome, and what runs."""
    op.drop_index("ix_occurrences_open", table_name="occurrences")
    op.create_index("ix_occurrences_outcome", "occurrences", ["outcome", "due"])
    op.create_index(
        "ix_occurrences_running",
        "occurrences",
        ["running"],
        postgresql_where=sa.text("running"),
        sqlite_where=sa.text("running = 1"),
    )


def downgrade() -> None:
    """Undo it."""
    op.drop_index("ix_occurrences_running", table_name="occurrences")
    op.drop_index("ix_occurrences_outcome", table_name="occurrences")
    op.create_index("ix_occurrences_open", "occurrences", ["due"], postgresql_where=OPEN, sqlite_where=OPEN)
