"""The first tables: occurrences and their runs, resolutions, the event log, rule versions.

Revision ID: 0001
Revises: nothing
"""

from __future__ import annotations

import uuid

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

INSTANT = sa.DateTime(timezone=True)
OPEN = sa.text("outcome IN ('expected', 'missed', 'approved')")
# SQLite counts only INTEGER PRIMARY KEY up by itself.
BIG_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Make the tables, and begin the event log."""
    op.create_table(
        "cursors",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("at", INSTANT, nullable=False),
        sa.PrimaryKeyConstraint("name"),
    )
    op.create_table(
        "events",
        sa.Column("seq", BIG_ID, autoincrement=False, nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("event_type", sa.Text(), nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("source_ref", sa.Text(), nullable=False),
        sa.Column("owner_id", sa.Text(), nullable=False),
        sa.Column("session_id", sa.Text(), nullable=True),
        sa.Column("channel", sa.Text(), nullable=True),
        sa.Column("occurred_at_utc", INSTANT, nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("payload", sa.JSON(), nullable=False),
        sa.Column("recorded_at", INSTANT, nullable=False),
        sa.PrimaryKeyConstraint("seq"),
        sa.UniqueConstraint("key", name="uq_events_key"),
    )
    op.create_index("ix_events_recorded_at", "events", ["recorded_at"], unique=False)
    op.create_index("ix_events_source_ref", "events", ["source_ref", "seq"], unique=False)

    op.create_table(
        "leases",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("holder", sa.Text(), nullable=False),
        sa.Column("until", INSTANT, nullable=False),
        sa.PrimaryKeyConstraint("name"),
    )
    log_head = op.create_table(
        "log_head",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("log_id", sa.Text(), nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.Column("emitted", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.bulk_insert(log_head, [{"id": 1, "log_id": str(uuid.uuid4()), "seq": 0, "emitted": 0}])
    op.create_table(
        "occurrences",
        sa.Column("id", BIG_ID, autoincrement=True, nullable=False),
        sa.Column("rule_id", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("owner_id", sa.Text(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("due", INSTANT, nullable=False),
        sa.Column("cause", sa.Text(), nullable=False),
        sa.Column("outcome", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("running", sa.Boolean(), nullable=False),
        sa.Column("run_id", sa.Text(), nullable=True),
        sa.Column("started_at", INSTANT, nullable=True),
        sa.Column("ended_at", INSTANT, nullable=True),
        sa.Column("recorded_at", INSTANT, nullable=False),
        sa.Column("origin_id", BIG_ID, nullable=True),
        sa.ForeignKeyConstraint(["origin_id"], ["occurrences.id"], name="fk_occurrences_origin_id"),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("rule_id", "key", name="uq_occurrences_rule_id_key"),
    )
    op.create_index("ix_occurrences_due", "occurrences", ["due"], unique=False)
    op.create_index(
        "ix_occurrences_open", "occurrences", ["due"], unique=False, postgresql_where=OPEN, sqlite_where=OPEN
    )
    op.create_index("ix_occurrences_rule_id_due", "occurrences", ["rule_id", "due"], unique=False)

    op.create_table(
        "rule_versions",
        sa.Column("id", BIG_ID, autoincrement=True, nullable=False),
        sa.Column("rule_id", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("since", INSTANT, nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("deployment_id", sa.Text(), nullable=True),
        sa.Column("snapshot", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("rule_id", "since", name="uq_rule_versions_rule_id_since"),
    )
    op.create_table(
        "resolutions",
        sa.Column("id", BIG_ID, autoincrement=True, nullable=False),
        sa.Column("occurrence_id", BIG_ID, nullable=False),
        sa.Column("action", sa.Text(), nullable=False),
        sa.Column("resolved_by", sa.Text(), nullable=False),
        sa.Column("via", sa.Text(), nullable=False),
        sa.Column("at", INSTANT, nullable=False),
        sa.Column("run_id", sa.Text(), nullable=True),
        sa.Column("target", INSTANT, nullable=True),
        sa.ForeignKeyConstraint(["occurrence_id"], ["occurrences.id"], name="fk_resolutions_occurrence_id"),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("occurrence_id", name="uq_resolutions_occurrence_id"),
    )
    op.create_table(
        "runs",
        sa.Column("run_id", sa.Text(), nullable=False),
        sa.Column("occurrence_id", BIG_ID, nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("deployment_id", sa.Text(), nullable=True),
        sa.Column("last_state_id", sa.Text(), nullable=True),
        sa.Column("last_type", sa.Text(), nullable=True),
        sa.Column("last_name", sa.Text(), nullable=True),
        sa.Column("last_at", INSTANT, nullable=True),
        sa.Column("ended_state_id", sa.Text(), nullable=True),
        sa.Column("ended_type", sa.Text(), nullable=True),
        sa.Column("ended_name", sa.Text(), nullable=True),
        sa.Column("ended_message", sa.Text(), nullable=True),
        sa.Column("ended_at", INSTANT, nullable=True),
        sa.Column("held_message", sa.Text(), nullable=True),
        sa.Column("held_at", INSTANT, nullable=True),
        sa.Column("first_running_at", INSTANT, nullable=True),
        sa.Column("last_running_at", INSTANT, nullable=True),
        sa.Column("deleted_at", INSTANT, nullable=True),
        sa.ForeignKeyConstraint(["occurrence_id"], ["occurrences.id"], name="fk_runs_occurrence_id"),
        sa.PrimaryKeyConstraint("run_id"),
    )
    op.create_index("ix_runs_occurrence_id", "runs", ["occurrence_id"], unique=False)


def downgrade() -> None:
    """Undo it."""
    op.drop_index("ix_runs_occurrence_id", table_name="runs")

    op.drop_table("runs")
    op.drop_table("resolutions")
    op.drop_table("rule_versions")
    op.drop_index("ix_occurrences_rule_id_due", table_name="occurrences")
    op.drop_index("ix_occurrences_open", table_name="occurrences")
    op.drop_index("ix_occurrences_due", table_name="occurrences")

    op.drop_table("occurrences")
    op.drop_table("log_head")
    op.drop_table("leases")
    op.drop_index("ix_events_source_ref", table_name="events")
    op.drop_index("ix_events_recorded_at", table_name="events")

    op.drop_table("events")
    op.drop_table("cursors")
