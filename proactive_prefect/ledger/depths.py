"""How much waits at this moment: read for metrics, in few and indexed looks."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import func, select, text
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from .cursors import RECONCILED, read_cursor
from .log import Head, read_head
from .tables import OPEN, Delivery, Occurrence

# In words, not with a parameter: so SQLite knows the index of just these rows for what it is.
_WAITING = text("status = 'waiting'")


@dataclass(frozen=True)
class Depths:
    """What is open. `missed` (waiting for a decision), `due` (not started yet) and `running` count by kind."""

    missed: Counter[str]
    due: Counter[str]
    running: Counter[str]
    oldest_due: datetime | None
    """The due time of the oldest occurrence that should have started, and is not held as missed."""
    deliveries: int
    """Accepted webhook calls that have no run yet."""
    head: Head
    reconciled: datetime | None
    """Up to when the account has been compared with Prefect's runs."""


async def read_depths(session: AsyncSession, now: datetime) -> Depths:
    """What is open at `now`."""
    missed: Counter[str] = Counter()
    due: Counter[str] = Counter()
    running: Counter[str] = Counter()
    query = (
        select(
            col(Occurrence.kind),
            col(Occurrence.outcome),
            col(Occurrence.running),
            func.count(),
            func.min(col(Occurrence.due)),
        )
        # At work may also be what has an outcome: a failed run that somebody has Prefect run once more.
        .where((col(Occurrence.outcome).in_(OPEN) & (col(Occurrence.due) <= now)) | col(Occurrence.running))
        .group_by(col(Occurrence.kind), col(Occurrence.outcome), col(Occurrence.running))
    )
    waiting: list[datetime] = []
    for kind, outcome, at_work, count, oldest in (await session.execute(query)).tuples():
        (running if at_work else missed if outcome == "missed" else due)[kind] += count
        if not at_work and outcome != "missed":
            waiting.append(oldest)
    undispatched = select(func.count()).select_from(Delivery).where(_WAITING)
    return Depths(
        missed,
        due,
        running,
        min(waiting, default=None),
        int((await session.scalars(undispatched)).one()),
        await read_head(session),
        await read_cursor(session, RECONCILED),
    )
