"""Running totals, for metrics.

Revision ID: 0002
Revises: 0001
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Make the table, and count what is there; how late and how long runs were is counted from now on."""
    op.create_table(
        "tallies",
        sa.Column("measure", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("label", sa.Text(), nullable=False),
        sa.Column("value", sa.Float(53), nullable=False),
        sa.PrimaryKeyConstraint("measure", "kind", "label"),
    )
    op.execute(
        "INSERT INTO tallies (measure, kind, label, value) "
        "SELECT 'outcomes', kind, outcome, count(*) FROM occurrences WHERE outcome <> 'expected' GROUP BY kind, outcome"
    )
    op.execute(
        "INSERT INTO tallies (measure, kind, label, value) "
        "SELECT 'events', source, event_type, count(*) FROM events GROUP BY source, event_type"
    )


def downgrade() -> None:
    """Undo it."""
    op.drop_table("tallies")
