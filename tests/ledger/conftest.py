"""A ledger on each database that answers here: SQLite always, PostgreSQL where one listens."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import asyncpg
import pytest

from proactive_prefect.ledger.db import Ledger, open_ledger
from proactive_prefect.settings import Settings

POSTGRES = "postgresql://postgres@127.0.0.1:5432"


async def postgres(statement: str) -> None:
    """Run a statement as the server's owner, outside of any test's database."""
    connection = await asyncpg.connect(f"{POSTGRES}/postgres", timeout=5)
    try:
        await connection.execute(statement)
    finally:
        await connection.close()


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """A fresh PostgreSQL database, dropped afterwards; skips where PostgreSQL does not answer."""
    name = f"ledger_{uuid.uuid4().hex[:12]}"
    try:
        asyncio.run(postgres(f"CREATE DATABASE {name}"))
    except (OSError, TimeoutError, asyncpg.PostgresError) as error:
        pytest.skip(f"no PostgreSQL answers at {POSTGRES}: {error}")
    try:
        yield f"{POSTGRES}/{name}"
    finally:
        asyncio.run(postgres(f"DROP DATABASE {name} WITH (FORCE)"))


async def _empty(url: str) -> None:
    connection = await asyncpg.connect(url, timeout=5)
    try:
        await connection.execute("DROP SCHEMA public CASCADE; CREATE SCHEMA public")
    finally:
        await connection.close()


@pytest.fixture(params=["sqlite", "postgres"])
def ledger_settings(request: pytest.FixtureRequest, tmp_path: Path) -> Settings:
    """Settings that name an empty database; each test that takes this runs on both."""
    if request.param == "sqlite":
        return Settings(home=tmp_path / "home")
    url: str = request.getfixturevalue("postgres_url")
    asyncio.run(_empty(url))
    return Settings(home=tmp_path / "home", database_url=url)


@pytest.fixture
async def ledger(ledger_settings: Settings) -> AsyncIterator[Ledger]:
    """An open ledger with nothing in it."""
    async with open_ledger(ledger_settings) as opened:
        yield opened
