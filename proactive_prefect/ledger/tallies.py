"""Running totals of the account and of the event log, for metrics: kept in the transaction of what they count.

So they are the same from whichever process they are read, survive every restart, and cost no look at the account
itself. They only rise: an occurrence counts once under each outcome that it comes to (one that was missed and then ran,
under both), and a correction later takes nothing back.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from sqlalchemy import case, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from .db import AT_END
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

_FOUND = "the tallies' additions"
_Key = tuple[Measure, str, str]
Tallies = Mapping[tuple[str, str, str], float]
"""Every total, by measure, kind (of events: their source) and label."""


def tally_events(session: AsyncSession, events: Iterable[Event]) -> None:
    """Count entries of the event log, in a session of `Ledger.write`."""
    _of(session).more.update(("events", event.source, event.event_type) for event in events)


def tally_outcome(session: AsyncSession, occurrence: Occurrence, before: str, runs: Sequence[Run]) -> None:
    """Count what an occurrence has come to, and, where it ran, how late it began and how long it took."""
    outcome, kind = occurrence.outcome, occurrence.kind
    if outcome in (before, "expected"):
        return
    found = _of(session)
    found.more["outcomes", kind, outcome] += 1
    if outcome not in RAN or before in RAN or occurrence.started_at is None:
        return
    # What waited for somebody to decide was not late by our doing.
    if not any(run.held_at for run in runs):
        lag = max(0.0, (occurrence.started_at - occurrence.due).total_seconds())
        found.observe("lag", kind, lag, LAG_BUCKETS)
        found.last_lag, found.greatest_lag = lag, max(lag, found.greatest_lag)
    if occurrence.ended_at is not None:
        length = max(0.0, (occurrence.ended_at - occurrence.started_at).total_seconds())
        found.observe("duration", kind, length, DURATION_BUCKETS)


async def read_tallies(session: AsyncSession) -> Tallies:
    """Every total there is."""
    rows = (await session.scalars(select(Tally))).all()
    return {(row.measure, row.kind, row.label): row.value for row in rows}


@dataclass
class _Found:
    """What one transaction adds: written at its end, in one statement or two however much there was."""

    more: Counter[_Key] = field(default_factory=Counter)
    last_lag: float | None = None
    greatest_lag: float = 0.0

    def observe(self, measure: Measure, kind: str, seconds: float, buckets: Sequence[float]) -> None:
        place = bisect_left(buckets, seconds)
        bucket = OVER if place == len(buckets) else f"{buckets[place]:g}"
        self.more[measure, kind, bucket] += 1
        self.more[measure, kind, "count"] += 1
        self.more[measure, kind, "sum"] += seconds  # type: ignore[assignment]  # a Counter of floats

    async def write(self, session: AsyncSession) -> None:
        insert = insert_into(session, Tally)
        new, old = insert.excluded.value, col(Tally.value)
        if self.more:
            await session.execute(_upsert(insert, self.more, old + new))
        if self.last_lag is not None:
            lags: dict[_Key, float] = {
                ("lag", EVERY, "last"): self.last_lag,
                ("lag", EVERY, "max"): self.greatest_lag,
            }
            keep = case(((col(Tally.label) == "max") & (old > new), old), else_=new)
            await session.execute(_upsert(insert, lags, keep))


def _of(session: AsyncSession) -> _Found:
    found = session.info.get(_FOUND)
    if found is None:
        found = session.info[_FOUND] = _Found()
        session.info.setdefault(AT_END, []).append(found.write)
    assert isinstance(found, _Found)
    return found


def _upsert(insert: Any, found: Mapping[_Key, float], value: Any) -> Any:
    rows = [{"measure": m, "kind": k, "label": label, "value": float(value)} for (m, k, label), value in found.items()]
    return insert.values(rows).on_conflict_do_update(index_elements=["measure", "kind", "label"], set_={"value": value})
