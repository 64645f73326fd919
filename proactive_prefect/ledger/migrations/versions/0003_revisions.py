"""Revisions: what of the account has changed since a reader last looked.

Revision ID: 0003
Revises: 0002
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Number the changes of occurrences."""
    op.add_column("log_head", sa.Column("revision", sa.BigInteger(), nullable=False, server_default="0"))
    op.add_column("occurrences", sa.Column("revision", sa.BigInteger(), nullable=False, server_default="0"))
    op.create_index("ix_occurrences_revision", "occurrences", ["revision"])


def downgrade() -> None:
    """Take the numbers away."""
    op.drop_index("ix_occurrences_revision", table_name="occurrences")
    op.drop_column("occurrences", "revision")
    op.drop_column("log_head", "revision")
