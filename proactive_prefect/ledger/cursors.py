"""How far the readers of things outside have come."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from .leases import insert_into
from .tables import Cursor

RECONCILED = "reconciled"
"""Up to when the runs in Prefect have been compared with the account."""
BEGAN = "began"
"""From when on the account has all that Prefect knew."""


async def read_cursor(session: AsyncSession, name: str) -> datetime | None:
    """How far that reader has come; None if it has never read."""
    found = await session.get(Cursor, name)
    return None if found is None else found.at


async def move(session: AsyncSession, name: str, at: datetime) -> None:
    """Note that the reader has come as far as `at`; never back."""
    insert = insert_into(session, Cursor)
    await session.execute(
        insert.values(name=name, at=at).on_conflict_do_update(
            index_elements=["name"], set_={"at": insert.excluded.at}, where=col(Cursor.at) < insert.excluded.at
        )
    )
