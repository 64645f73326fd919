"""The inbox: deliveries of webhooks.

Revision ID: 0005
Revises: 0004
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"

INSTANT = sa.DateTime(timezone=True)
WAITING = sa.text("status = 'waiting'")
FINGERPRINTED = sa.text("fingerprint IS NOT NULL")
GROUPED = sa.text("group_key IS NOT NULL")
JOINED = sa.text("joined_id IS NOT NULL")


def upgrade() -> None:
    """Make the table."""
    op.create_table(
        "deliveries",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("rule_id", sa.Text(), nullable=False),
        sa.Column("delivery_id", sa.Text(), nullable=False),
        sa.Column("received_at", INSTANT, nullable=False),
        sa.Column("headers", sa.Text(), nullable=False),
        sa.Column("payload", sa.Text(), nullable=False),
        sa.Column("fingerprint", sa.Text(), nullable=True),
        sa.Column("group_key", sa.Text(), nullable=True),
        sa.Column("joined_id", sa.Text(), nullable=True),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("run_id", sa.Text(), nullable=True),
        sa.Column("holder", sa.Text(), nullable=True),
        sa.Column("due_at", INSTANT, nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("settled_at", INSTANT, nullable=True),
        sa.Column("replay_of", sa.Text(), nullable=True),
        sa.Column("erased_at", INSTANT, nullable=True),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("rule_id", "delivery_id", name="uq_deliveries_rule_id_delivery_id"),
    )
    op.create_index(
        "ix_deliveries_waiting", "deliveries", ["due_at"], unique=False, postgresql_where=WAITING, sqlite_where=WAITING
    )
    op.create_index(
        "ix_deliveries_fingerprint",
        "deliveries",
        ["rule_id", "fingerprint"],
        unique=False,
        postgresql_where=FINGERPRINTED,
        sqlite_where=FINGERPRINTED,
    )
    op.create_index(
        "ix_deliveries_group",
        "deliveries",
        ["rule_id", "group_key"],
        unique=False,
        postgresql_where=GROUPED,
        sqlite_where=GROUPED,
    )
    op.create_index(
        "ix_deliveries_joined_id",
        "deliveries",
        ["joined_id"],
        unique=False,
        postgresql_where=JOINED,
        sqlite_where=JOINED,
    )
    op.create_index("ix_deliveries_received_at", "deliveries", ["received_at"], unique=False)


def downgrade() -> None:
    """Undo it."""
    op.drop_table("deliveries")
