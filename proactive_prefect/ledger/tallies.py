"""Running totals of the account and of the event log, for metrics: kept in the transaction of what they count.

So they are the same from whichever process they are read, survive every restart, and cost no look at the account
itself. They only rise: an occurrence counts once under each outcome that it comes to (one that was missed and then ran,
under both), and a correction later takes nothing back.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

from sqlalchemy import case, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from .leases import insert_into
from .tables import Event, Occurrence, Run, Tally

Measure = Literal["outcomes", "events", "lag", "duration"]

LAG_BUCKETS = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 3600.0)
"""Seconds from an occurrence's due time to the start of its run."""
DURATION_BUCKETS = (0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0, 14400.0)
"""Seconds from the start of a run to its end."""
OVER = "inf"
EVERY = ""
"""In place of a kind: over all of them."""
RAN = ("completed", "quiet", "failed", "timed_out", "cancelled", "unknown")

_Key = tuple[Measure, str, str]
Tallies = Mapping[tuple[str, str, str], float]
"""Every total, by measure, kind (of events: their source) and label."""


async def tally_events(session: AsyncSession, events: Iterable[Event]) -> None:
    """Count entries of the event log."""
    await _add(session, Counter(("events", event.source, event.event_type) for event in events))


async def tally_outcome(session: AsyncSession, occurrence: Occurrence, before: str, runs: Sequence[Run]) -> None:
    """Count what an occurrence has come to, and, where it ran, how late it began and how long it took."""
    outcome, kind = occurrence.outcome, occurrence.kind
    if outcome in (before, "expected"):
        return
    found: dict[_Key, float] = {("outcomes", kind, outcome): 1.0}
    latest: dict[_Key, float] = {}
    if outcome in RAN and before not in RAN and occurrence.started_at is not None:
        # What waited for somebody to decide was not late by our doing.
        if not any(run.held_at for run in runs):
            lag = max(0.0, (occurrence.started_at - occurrence.due).total_seconds())
            found |= _observe("lag", kind, lag, LAG_BUCKETS)
            latest["lag", EVERY, "last"] = latest["lag", EVERY, "max"] = lag
        if occurrence.ended_at is not None:
            length = max(0.0, (occurrence.ended_at - occurrence.started_at).total_seconds())
            found |= _observe("duration", kind, length, DURATION_BUCKETS)
    await _add(session, found)
    await _note(session, latest)


async def read_tallies(session: AsyncSession) -> Tallies:
    """Every total there is."""
    rows = (await session.scalars(select(Tally))).all()
    return {(row.measure, row.kind, row.label): row.value for row in rows}


def _observe(measure: Measure, kind: str, seconds: float, buckets: Sequence[float]) -> dict[_Key, float]:
    place = bisect_left(buckets, seconds)
    bucket = OVER if place == len(buckets) else f"{buckets[place]:g}"
    return {(measure, kind, bucket): 1.0, (measure, kind, "sum"): seconds, (measure, kind, "count"): 1.0}


async def _add(session: AsyncSession, found: dict[_Key, float] | Counter[_Key]) -> None:
    if not found:
        return
    insert = insert_into(session, Tally)
    rows = [{"measure": m, "kind": k, "label": label, "value": float(value)} for (m, k, label), value in found.items()]
    await session.execute(
        insert.values(rows).on_conflict_do_update(
            index_elements=["measure", "kind", "label"], set_={"value": col(Tally.value) + insert.excluded.value}
        )
    )


async def _note(session: AsyncSession, found: dict[_Key, float]) -> None:
    """Keep the latest value, or under the label `max` the greatest."""
    if not found:
        return
    insert = insert_into(session, Tally)
    new, old = insert.excluded.value, col(Tally.value)
    rows = [{"measure": m, "kind": k, "label": label, "value": value} for (m, k, label), value in found.items()]
    keep = case(((col(Tally.label) == "max") & (old > new), old), else_=new)
    await session.execute(
        insert.values(rows).on_conflict_do_update(index_elements=["measure", "kind", "label"], set_={"value": keep})
    )
