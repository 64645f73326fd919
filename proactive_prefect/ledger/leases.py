"""Work that is one process's at a time: taken for a while, put off while it lives, free when it dies."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from sqlalchemy import Table, delete
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from .db import Ledger
from .tables import Lease


async def hold(ledger: Ledger, name: str, holder: str, length: timedelta) -> bool:
    """Take the lease for `length` from now, or put it off if `holder` has it; False while another holds it."""
    async with ledger.write() as session:
        now = await ledger.now(session)
        values = {"name": name, "holder": holder, "until": now + length}
        insert = insert_into(session, Lease)
        taken = insert.values(values).on_conflict_do_update(
            index_elements=["name"],
            set_={"holder": insert.excluded.holder, "until": insert.excluded.until},
            where=(col(Lease.holder) == holder) | (col(Lease.until) <= now),
        )
        return bool((await session.execute(taken)).rowcount)  # type: ignore[attr-defined]


async def release(ledger: Ledger, name: str, holder: str) -> None:
    """Give the lease back, so that another need not wait for its end."""
    async with ledger.write() as session:
        await session.execute(delete(Lease).where(col(Lease.name) == name, col(Lease.holder) == holder))


def insert_into(session: AsyncSession, table: Any) -> Any:
    """The INSERT of this session's database, which knows ON CONFLICT: SQLite and PostgreSQL spell it alike."""
    found = table.__table__
    assert isinstance(found, Table)
    return postgresql.insert(found) if session.get_bind().dialect.name == "postgresql" else sqlite.insert(found)
