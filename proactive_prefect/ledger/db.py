"""The ledger's database: a SQLite file by default, PostgreSQL by URL; opened with its tables brought up to date.

Asynchronous throughout, since the gateway that uses it serves thousands of calls from one event loop; both drivers
(aiosqlite, asyncpg) come with Prefect. A command that needs it runs it in a loop of its own.

Reading and writing are apart. A writer says so before its first statement: on SQLite by BEGIN IMMEDIATE, so that it
waits for its turn and no read ever has to turn into a write, which is what "database is locked" comes from; the
connections of readers refuse to write at all. Writers of one process queue for one connection, those of several
processes for SQLite's lock. Readers see a snapshot and wait for nobody. What was committed is on the disk.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlalchemy import event, make_url, text
from sqlalchemy.engine import URL
from sqlalchemy.exc import ArgumentError, OperationalError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine

from ..cursors import close_failed_cursors
from ..errors import InputError, ProactiveError
from ..settings import Settings
from .migrate import migrate

FILE = "ledger.db"
AT_END = "what is written last"
"""In `info` of a writing session: a list of async functions of it that are called before it is committed."""
_BUSY_SECONDS = 60.0
_TURN_SECONDS = 120.0  # that a writer, or a reader, waits for a connection of this process
_DRIVERS = {
    "sqlite": "sqlite+aiosqlite",
    "sqlite+aiosqlite": "sqlite+aiosqlite",
    "postgres": "postgresql+asyncpg",
    "postgresql": "postgresql+asyncpg",
    "postgresql+asyncpg": "postgresql+asyncpg",
}


class LedgerError(ProactiveError):
    """The ledger's database cannot be opened or used."""


class Ledger:
    """An open ledger. Several may be open on one database, in any number of processes."""

    def __init__(self, url: URL) -> None:
        self.url = url
        self.is_sqlite = url.get_backend_name() == "sqlite"
        self._writers, self._readers = _sqlite_engines(url) if self.is_sqlite else _postgres_engines(url)
        self._untold = () if self.is_sqlite else _asyncpgs_errors()
        self._written = asyncio.Condition()

    @contextlib.asynccontextmanager
    async def read(self) -> AsyncIterator[AsyncSession]:
        """A session that only reads, all from one snapshot. Raises SQLAlchemyError or OSError where that fails."""
        with self._as_sqlalchemys():
            async with AsyncSession(self._readers, expire_on_commit=False) as session:
                yield session

    @contextlib.asynccontextmanager
    async def write(self, *, tell: bool = True) -> AsyncIterator[AsyncSession]:
        """A session for one transaction: committed, durably, at the end of the block; nothing of it if that raises.

        Not one inside another: the inner one would wait for the outer one, which waits for it. `tell` False wakes
        none of those who wait for writes: what is written is nothing to them. Raises as `read`.
        """
        with self._as_sqlalchemys():
            async with AsyncSession(self._writers, expire_on_commit=False) as session, session.begin():
                yield session
                for finish in session.info.get(AT_END, ()):
                    await finish(session)
        if tell:
            async with self._written:
                self._written.notify_all()

    async def wait_for_write(self, within: float) -> bool:
        """Wait for a write of this process, at most `within` seconds; whether there was one."""
        try:
            async with asyncio.timeout(within), self._written:
                return await self._written.wait()
        except TimeoutError:
            return False

    async def now(self, session: AsyncSession) -> datetime:
        """The one clock of everyone who uses this database: the server's, or this machine's for a file."""
        if self.is_sqlite:
            return datetime.now(UTC)
        found = (await session.execute(text("SELECT clock_timestamp()"))).scalar_one()
        assert isinstance(found, datetime)
        return found.astimezone(UTC)

    async def close(self) -> None:
        """Close every connection."""
        await self._writers.dispose()
        await self._readers.dispose()

    @contextlib.contextmanager
    def _as_sqlalchemys(self) -> Iterator[None]:
        """asyncpg's errors as SQLAlchemy's, which lets them through where a connection is refused: all expect those."""
        try:
            yield
        except self._untold as error:
            raise OperationalError(None, None, error) from error

    async def _migrate(self) -> None:
        await migrate(self._writers, self._file)

    @property
    def _file(self) -> Path | None:
        return Path(self.url.database) if self.is_sqlite and self.url.database else None


@contextlib.asynccontextmanager
async def open_ledger(settings: Settings | None = None) -> AsyncIterator[Ledger]:
    """Open the ledger that the settings name, with its tables brought up to date; made if it is not there.

    Raises InputError for a URL of another kind, LedgerError where the database does not answer or is too new.
    """
    ledger = Ledger(database_url(settings or Settings()))
    try:
        try:
            await ledger._migrate()
        except ProactiveError:
            raise
        except Exception as error:  # each driver, and each way to fail, has errors of its own
            said = (str(getattr(error, "orig", error)).splitlines() or [""])[0]
            raise LedgerError(
                f"the ledger's database at {ledger.url.render_as_string(hide_password=True)} cannot be opened: "
                f"{type(error).__name__}: {said}",
                hint="Is it up, and may this user write there? PROACTIVE_DATABASE_URL names it.",
            ) from error
        yield ledger
    finally:
        await ledger.close()


def database_url(settings: Settings) -> URL:
    """Where the ledger is: PROACTIVE_DATABASE_URL, else a file in PROACTIVE_HOME. Raises InputError."""
    if settings.database_url is None:
        return URL.create("sqlite+aiosqlite", database=str(settings.home.absolute() / FILE))
    try:
        url = make_url(settings.database_url)
    except ArgumentError:
        url = None
    if url is None or url.drivername not in _DRIVERS or (url.get_backend_name() == "sqlite" and not url.database):
        # The URL may hold a password, so it is not shown.
        raise InputError(
            "PROACTIVE_DATABASE_URL is not a URL that the ledger can use; "
            "allowed: postgresql://user:password@host/name or sqlite:///path/to/file.db"
        )
    return url.set(drivername=_DRIVERS[url.drivername])


def _sqlite_engines(url: URL) -> tuple[AsyncEngine, AsyncEngine]:
    close_failed_cursors()
    # Writers of this process wait here for each other, for as long as it takes.
    wait = {"timeout": _BUSY_SECONDS}
    # What is written stays out of the texts of errors.
    writers = create_async_engine(
        url, connect_args=wait, hide_parameters=True, pool_size=1, max_overflow=0, pool_timeout=_TURN_SECONDS
    )
    readers = create_async_engine(url, connect_args=wait, hide_parameters=True, pool_timeout=_TURN_SECONDS)
    for engine, begin, query_only in ((writers, "BEGIN IMMEDIATE", "OFF"), (readers, "BEGIN", "ON")):
        _prepare(engine, begin, query_only)
    return writers, readers


def _prepare(engine: AsyncEngine, begin: str, query_only: str) -> None:
    @event.listens_for(engine.sync_engine, "connect")
    def connect(connection: Any, _record: Any) -> None:
        connection.isolation_level = None  # the driver begins nothing by itself
        cursor = connection.cursor()
        for pragma in ("synchronous=FULL", "foreign_keys=ON", f"query_only={query_only}"):
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    @event.listens_for(engine.sync_engine, "begin")
    def begin_transaction(connection: Any) -> None:
        connection.exec_driver_sql(begin)


def _asyncpgs_errors() -> tuple[type[Exception], ...]:
    # A quarter of a second, which a ledger in a file need not spend.
    import asyncpg  # type: ignore[import-untyped]

    return (asyncpg.PostgresError, asyncpg.InterfaceError)


def _postgres_engines(url: URL) -> tuple[AsyncEngine, AsyncEngine]:
    # Connections that a restart of the server has broken are noticed before they are used.
    engine = create_async_engine(
        url,
        hide_parameters=True,
        pool_pre_ping=True,
        pool_timeout=_TURN_SECONDS,
        connect_args={"server_settings": {"application_name": "proactive-prefect", "timezone": "UTC"}},
    )
    readers = engine.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
    return engine, readers
