"""From what is recorded of a rule on a day, and what is foreseen of it, the rows that a calendar shows: pure.

Both the projection and the full recomputation say by this what a row is; how they come to what it is made of differs.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import date, datetime, timedelta
from typing import Literal

from ..firing.foreseen import foreseen_skip
from ..rules.models import Kind
from ..rules.spans import Span
from .entries import Asked, Entry, Status
from .ids import day_id, entry_id
from .past import Cell, midnight
from .plans import Plan, actions_for

DAY = timedelta(days=1)
UNRECORDED = timedelta(minutes=2)
"""How long an occurrence is still foreseen after it was due: its run needs a moment to be heard of."""

_GRAVEST: tuple[Status, ...] = (
    "missed",
    "failed",
    "timed_out",
    "unknown",
    "running",
    "approved",
    "expected",
    "scheduled",
    "completed",
    "quiet",
    "skipped",
    "cancelled",
    "rescheduled",
    "deleted",
)


Phase = Literal["past", "now", "future"]


def phase_of(day: date, now: datetime) -> Phase:
    """Where a day stands: it is past only when nothing of it is foreseen any more."""
    if midnight(day) + DAY <= now - UNRECORDED:
        return "past"
    return "future" if midnight(day) > now else "now"


def rows_of_day(
    day: date, plan: Plan | None, cell: Cell | None, now: datetime, fold_above: int
) -> tuple[Entry, ...] | Entry:
    """The single entries of a rule on a day, by due time; or the one row that stands for all of them."""
    start, end = midnight(day), midnight(day) + DAY
    if plan is None or phase_of(day, now) == "past":
        foreseen = Span()
    else:
        foreseen = plan.due(max(start, now - UNRECORDED, plan.since), end, fold_above)
    if cell is not None and cell.entries is None:
        return _folded(day, plan, cell, now)
    recorded = _as_of(cell.entries, plan, now) if cell is not None and cell.entries is not None else ()
    if foreseen.count == 0:
        return recorded
    if foreseen.count > fold_above:
        return _folded(day, plan, cell, now)
    there = {one.event_id for one in recorded}
    assert plan is not None  # it foresaw something
    coming = [one for one in (foreseen_entry(plan, at, now) for at in foreseen.instants) if one.event_id not in there]
    if not coming:
        return recorded
    if len(recorded) + len(coming) > fold_above:
        return _folded(day, plan, cell, now)
    return tuple(sorted((*recorded, *coming), key=by_due)) if recorded else tuple(coming)


def foreseen_entry(plan: Plan, at: datetime, now: datetime) -> Entry:
    """An occurrence that is not recorded yet."""
    status: Status = "scheduled" if at > now else "expected"
    return Entry(
        event_id=entry_id(plan.rule_id, at),
        source=plan.kind,
        source_ref=plan.rule_id,
        owner_id=plan.owner_id,
        title=plan.title,
        status=status,
        scheduled_at_utc=at,
        reason=_will_skip(plan, at),
        actions=actions_for(status, plan),
    )


def by_due(entry: Entry) -> tuple[datetime, str]:
    """The order of entries."""
    return entry.scheduled_at_utc, entry.event_id


def wanted(entries: Iterable[Entry], asked: Asked) -> Iterable[Entry]:
    """Those of the entries that were asked for. A day's row counts its whole day."""
    narrowed = asked.rules or asked.kinds or asked.statuses
    for one in entries:
        if one.scheduled_at_utc >= asked.end or (one.scheduled_until_utc or one.scheduled_at_utc) < asked.start:
            continue
        if narrowed:
            if asked.rules and one.source_ref not in asked.rules:
                continue
            if asked.kinds and one.source not in asked.kinds:
                continue
            if asked.statuses and asked.statuses.isdisjoint(one.counts if one.counts is not None else (one.status,)):
                continue
        yield one


def gravest(counts: Iterable[Status]) -> Status:
    """The status that people should see first."""
    return min(counts, key=_GRAVEST.index)


def _as_of(entries: Sequence[Entry], plan: Plan | None, now: datetime) -> tuple[Entry, ...]:
    """Recorded ones whose time is yet to come are scheduled."""
    return tuple(
        replace(
            one, status="scheduled", reason=_will_skip(plan, one.scheduled_at_utc) if one.cause == "schedule" else ""
        )
        if one.status == "expected" and one.scheduled_at_utc > now
        else one
        for one in entries
    )


def _will_skip(plan: Plan | None, at: datetime) -> str:
    """Why it will be skipped, or nothing."""
    skip = foreseen_skip(plan.rule, at) if plan is not None else None
    return str(skip) if skip else ""


def _folded(day: date, plan: Plan | None, cell: Cell | None, now: datetime) -> Entry:
    start, end = midnight(day), midnight(day) + DAY
    counts: dict[Status, int] = dict(cell.counts) if cell is not None else {}
    foreseen = Span() if plan is None or end <= now else plan.due(max(start, now, plan.since), end, 0)
    coming = foreseen.count
    if not counts and not coming and plan is not None:
        # The last of the day: due by now, and nothing is heard of them yet.
        foreseen = plan.due(max(start, now - UNRECORDED, plan.since), end, 0)
        counts["expected"] = foreseen.count
    for at, waits in cell.ahead if cell is not None else ():
        if at > now and waits:
            _move(counts, "expected", "scheduled")
        if at > now and plan is not None and plan.due(at, at + timedelta(microseconds=1), 0).count:
            coming -= 1  # it is recorded already
    if coming > 0:
        counts["scheduled"] = counts.get("scheduled", 0) + coming
    firsts = [at for at in (cell.first if cell else None, foreseen.first) if at is not None]
    lasts = [at for at in (cell.last if cell else None, foreseen.last) if at is not None]
    status = gravest(counts)
    known = cell or plan
    assert known is not None  # there would be nothing to fold
    kind: Kind = known.kind  # type: ignore[assignment]  # kept as text in the table
    return Entry(
        event_id=day_id(known.rule_id, day),
        source=kind,
        source_ref=known.rule_id,
        owner_id=known.owner_id,
        title=plan.title if plan else known.rule_id,
        status=status,
        scheduled_at_utc=min(firsts),
        scheduled_until_utc=max(lasts),
        always_running=True,
        running="running" in counts,
        counts={one: counts[one] for one in _GRAVEST if counts.get(one)},
        version=cell.revision if cell is not None else 0,
        last_event_at_utc=cell.last_event if cell is not None else None,
        actions=actions_for("completed", plan),
    )


def _move(counts: dict[Status, int], source: Status, target: Status) -> None:
    if counts.get(source, 0) > 1:
        counts[source] -= 1
    else:
        counts.pop(source, None)
    counts[target] = counts.get(target, 0) + 1
