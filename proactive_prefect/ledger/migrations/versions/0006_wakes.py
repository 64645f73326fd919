"""Reasons to wake heartbeats.

Revision ID: 0006
Revises: 0005
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"

INSTANT = sa.DateTime(timezone=True)
BIG_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
WAITING = sa.text("delivered_at IS NULL")


def upgrade() -> None:
    """Make the table."""
    op.create_table(
        "wakes",
        sa.Column("id", BIG_ID, autoincrement=True, nullable=False),
        sa.Column("rule_id", sa.Text(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("mode", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("session_id", sa.Text(), nullable=True),
        sa.Column("asked_at", INSTANT, nullable=False),
        sa.Column("tried_now", sa.Boolean(), nullable=False),
        sa.Column("run_id", sa.Text(), nullable=True),
        sa.Column("delivered_at", INSTANT, nullable=True),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("rule_id", "key", name="uq_wakes_rule_id_key"),
    )
    op.create_index(
        "ix_wakes_waiting", "wakes", ["rule_id"], unique=False, postgresql_where=WAITING, sqlite_where=WAITING
    )


def downgrade() -> None:
    """Undo it."""
    op.drop_index("ix_wakes_waiting", table_name="wakes")
    op.drop_table("wakes")
