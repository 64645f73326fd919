"""Brings the ledger's tables up to date, once, however many processes start at the same time.

A file is locked while its tables change (a lock that ends with its process); on PostgreSQL the transaction holds an
advisory lock. All changes are one transaction on both, so a process that dies leaves the tables as they were.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import Connection, text
from sqlalchemy.ext.asyncio import AsyncEngine

from ..errors import ProactiveError

_ADVISORY_LOCK = 0x70726F6163746976  # "proactiv"


async def migrate(engine: AsyncEngine, file: Path | None) -> None:
    """Bring the tables to the newest version; a database that has it already is only looked at.

    `file` is the SQLite file, None for PostgreSQL. Raises ProactiveError if a newer version has written it.
    """
    async with _locked(file):
        if file is not None:
            async with engine.connect() as connection:
                await connection.run_sync(_keep_a_write_ahead_log)
        async with engine.begin() as connection:
            if file is None:
                await connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _ADVISORY_LOCK})
            await connection.run_sync(_upgrade)


def alembic_config(connection: Connection | None = None) -> Config:
    """Alembic's configuration, without a file of its own."""
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations").replace("%", "%%"))
    config.attributes["connection"] = connection
    return config


def _upgrade(connection: Connection) -> None:
    config = alembic_config(connection)
    current = MigrationContext.configure(connection).get_current_heads()
    if set(current) == set(ScriptDirectory.from_config(config).get_heads()):
        return
    try:
        command.upgrade(config, "head")
    except CommandError:
        raise ProactiveError(
            f"the ledger's tables have version {', '.join(current)}, which this version does not know",
            hint="A newer proactive-prefect wrote them: install that one, or name another PROACTIVE_DATABASE_URL.",
        ) from None


def _keep_a_write_ahead_log(connection: Connection) -> None:
    # Not inside a transaction; and not by two at once, which SQLite answers with "database is locked".
    cursor: Any = connection.connection.cursor()
    cursor.execute("PRAGMA journal_mode=WAL")
    cursor.close()


@contextlib.asynccontextmanager
async def _locked(file: Path | None) -> AsyncIterator[None]:
    if file is None:
        yield
        return
    # The database holds payloads and who did what: its owner only.
    file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    os.close(os.open(file, os.O_RDWR | os.O_CREAT, 0o600))
    lock = os.open(file.with_name(f"{file.name}.lock"), os.O_RDWR | os.O_CREAT, 0o600)
    try:
        await asyncio.to_thread(fcntl.flock, lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)
