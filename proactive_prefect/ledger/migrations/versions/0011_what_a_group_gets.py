"""What the run of a closed group gets; and the latest of equal calls by an index.

Revision ID: 0011
Revises: 0010
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"

FINGERPRINTED = sa.text("fingerprint IS NOT NULL")


def upgrade() -> None:
    """Add the column. What the rules of earlier groups said is not known any more: with all, nothing is lost."""
    op.add_column("deliveries", sa.Column("take", sa.Text(), nullable=True))
    op.execute("UPDATE deliveries SET take = 'all' WHERE joined_id IS NOT NULL")
    _index("rule_id", "fingerprint", "received_at")


def downgrade() -> None:
    """Undo it."""
    _index("rule_id", "fingerprint")
    op.drop_column("deliveries", "take")


def _index(*columns: str) -> None:
    op.drop_index("ix_deliveries_fingerprint", table_name="deliveries")
    op.create_index(
        "ix_deliveries_fingerprint",
        "deliveries",
        list(columns),
        unique=False,
        postgresql_where=FINGERPRINTED,
        sqlite_where=FINGERPRINTED,
    )
