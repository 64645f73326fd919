"""Missed runs: what was skipped without a run, what was left out, and when a resolution was carried out.

Revision ID: 0004
Revises: 0003
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"

INSTANT = sa.DateTime(timezone=True)


def upgrade() -> None:
    """Add the columns and the table; resolutions that were made before are carried out already."""
    op.add_column("occurrences", sa.Column("skipped_as", sa.Text()))
    op.add_column("resolutions", sa.Column("carried_at", INSTANT))
    op.execute("UPDATE resolutions SET carried_at = at")
    op.create_table(
        "left_out",
        sa.Column("rule_id", sa.Text(), nullable=False),
        sa.Column("since", INSTANT, nullable=False),
        sa.Column("until", INSTANT, nullable=False),
        sa.Column("count", sa.Integer(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("recorded_at", INSTANT, nullable=False),
        sa.PrimaryKeyConstraint("rule_id", "since"),
    )


def downgrade() -> None:
    """Take them away."""
    op.drop_table("left_out")
    op.drop_column("resolutions", "carried_at")
    op.drop_column("occurrences", "skipped_as")
