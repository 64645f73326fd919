"""What alembic runs for each migration; `ledger.migrate` gives it an open connection, inside a transaction."""

from __future__ import annotations

from alembic import context
from sqlmodel import SQLModel

from proactive_prefect.ledger import tables

assert tables

connection = context.config.attributes["connection"]
context.configure(
    connection=connection,
    target_metadata=SQLModel.metadata,
    render_as_batch=True,  # SQLite alters a table by copying it
    transactional_ddl=True,
    compare_type=True,
)
with context.begin_transaction():
    context.run_migrations()
