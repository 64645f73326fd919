"""The database under the ledger: made and brought up to date at the start, shared by many, never "locked"."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlmodel import SQLModel

from proactive_prefect.errors import InputError, ProactiveError
from proactive_prefect.ledger.db import Ledger, LedgerError, open_ledger
from proactive_prefect.ledger.log import append, read_events, read_head
from proactive_prefect.settings import Settings

from . import histories
from .conftest import postgres
from .writers import committed, start_writer


def test_several_processes_start_on_a_database_that_is_not_there_yet(ledger_settings: Settings) -> None:
    """Whoever starts first makes the tables, the others wait; all of them can write, and the log has no gap."""
    writers = [start_writer(ledger_settings, f"process-{number}", count=10) for number in range(4)]
    for process, here in writers:
        assert committed(here) == list(range(10))
        process.join(60)
        assert process.exitcode == 0

    async def logged() -> list[int]:
        async with open_ledger(ledger_settings) as ledger, ledger.read() as session:
            return [event.seq for event in await read_events(session)]

    assert asyncio.run(logged()) == list(range(1, 4 * 10 + 11 + 1))


async def test_the_migrations_make_the_tables_that_the_models_describe(ledger: Ledger) -> None:
    """A change to a table without a migration is found here."""
    async with ledger._writers.begin() as connection:
        differences = await connection.run_sync(
            lambda plain: compare_metadata(
                MigrationContext.configure(plain, opts={"compare_type": True}), SQLModel.metadata
            )
        )
    assert differences == []


async def test_an_open_ledger_is_opened_again_without_a_change(ledger: Ledger, ledger_settings: Settings) -> None:
    """Opening it again, while it is in use, neither waits nor empties it."""
    async with ledger.write() as session:
        await append(session, [histories.an_event("one")])
    async with open_ledger(ledger_settings) as again, again.read() as session:
        assert [event.key for event in await read_events(session)] == ["one"]
        assert (await read_head(session)).log_id


async def test_a_ledger_that_a_newer_version_wrote_is_refused(ledger: Ledger, ledger_settings: Settings) -> None:
    """An older program does not touch tables that it does not know."""
    async with ledger.write() as session:
        await session.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(ProactiveError, match="9999") as refusal:
        async with open_ledger(ledger_settings):
            pass
    assert "newer" in refusal.value.hint


async def test_what_reads_cannot_write(ledger: Ledger) -> None:
    """A session for reading refuses to write, so no read can turn into a write and find the database locked."""
    async with ledger.read() as session:
        with pytest.raises(DBAPIError, match=r"(?i)read-?only"):
            await session.execute(text("UPDATE log_head SET seq = 7"))


async def test_a_reader_sees_one_snapshot_while_others_write(ledger: Ledger) -> None:
    """What a reader has begun to read stays as it was until it is done."""
    async with ledger.read() as session:
        assert (await read_head(session)).seq == 0
        async with ledger.write() as writing:
            await append(writing, [histories.an_event("one")])
        assert (await read_head(session)).seq == 0
    async with ledger.read() as session:
        assert (await read_head(session)).seq == 1


async def test_a_block_that_fails_leaves_nothing(ledger: Ledger) -> None:
    """A transaction that raises takes back what it wrote, and its numbers too."""

    async def fail() -> None:
        async with ledger.write() as session:
            await append(session, [histories.an_event("lost")])
            raise RuntimeError("on purpose")

    with pytest.raises(RuntimeError, match="on purpose"):
        await fail()
    async with ledger.write() as session:
        assert [event.seq for event in await append(session, [histories.an_event("kept")])] == [1]


async def test_the_file_is_its_owners_only(tmp_path: Path) -> None:
    """Nobody else on the machine can read the ledger."""
    async with open_ledger(Settings(home=tmp_path / "home")):
        assert (tmp_path / "home" / "ledger.db").stat().st_mode & 0o077 == 0


@pytest.mark.parametrize(
    "url", ["mysql://u:hunter2@h/d", "hunter2", "sqlite://", "postgresql+psycopg2://u:hunter2@h/d"]
)
async def test_a_url_of_another_kind_is_refused_without_showing_its_password(url: str, tmp_path: Path) -> None:
    """The error says what is allowed, and nothing of what was given."""
    with pytest.raises(InputError, match="postgresql://") as refusal:
        async with open_ledger(Settings(home=tmp_path, database_url=url)):
            pass
    assert "hunter2" not in refusal.value.message + refusal.value.hint


async def test_a_database_that_is_not_there_is_an_error_of_one_line(postgres_url: str, tmp_path: Path) -> None:
    """PostgreSQL answers, but has no such database; or the folder is not ours to write in."""
    (tmp_path / "file").touch()
    for url in (f"{postgres_url}_not", f"sqlite:///{tmp_path}/file/ledger.db"):
        with pytest.raises(LedgerError, match="cannot be opened") as refusal:
            async with open_ledger(Settings(home=tmp_path, database_url=url)):
                pass
        assert "\n" not in refusal.value.message


async def test_a_database_that_does_not_answer_is_an_error_of_one_line(tmp_path: Path) -> None:
    """It names the address, never the password."""
    url = "postgresql://somebody:hunter2@127.0.0.1:1/ledger"
    with pytest.raises(LedgerError, match="cannot be opened") as refusal:
        async with open_ledger(Settings(home=tmp_path, database_url=url)):
            pass
    assert "hunter2" not in refusal.value.message
    assert "\n" not in refusal.value.message


async def test_a_refused_connection_is_an_error_that_all_expect(postgres_url: str, tmp_path: Path) -> None:
    """PostgreSQL starts up, shuts down or is full: every loop over the ledger goes on by SQLAlchemy's errors alone."""
    name = postgres_url.rpartition("/")[2]
    async with open_ledger(Settings(home=tmp_path, database_url=postgres_url)) as ledger:
        await postgres(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
        try:
            await postgres(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'")
            for session in (ledger.read, ledger.write):
                with pytest.raises(SQLAlchemyError, match="not currently accepting connections"):
                    async with session() as opened:
                        await read_head(opened)
        finally:
            await postgres(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")
        async with ledger.read() as opened:
            assert (await read_head(opened)).seq >= 0
