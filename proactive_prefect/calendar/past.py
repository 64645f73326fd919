"""What the ledger has recorded, by rule and day (UTC): single occurrences where they are few, else their counts."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from typing import Any

from sqlalchemy import Select, func, select, text
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from ..ledger.tables import Occurrence
from .entries import FOLD_ABOVE, STASIS_LIMIT, Entry, Status
from .ids import entry_id_of_key, origin_of
from .plans import Plan, actions_for

CellKey = tuple[str, date]
_AT_ONCE = 500  # rules named in one query
# Word for word the condition of the index of open occurrences, or it would not be used.
_OPEN = text("outcome IN ('expected', 'missed', 'approved')")

_one = Occurrence
_COLUMNS = (
    col(_one.id),
    col(_one.rule_id),
    col(_one.kind),
    col(_one.owner_id),
    col(_one.key),
    col(_one.due),
    col(_one.cause),
    col(_one.outcome),
    col(_one.reason),
    col(_one.running),
    col(_one.run_id),
    col(_one.started_at),
    col(_one.ended_at),
    col(_one.revision),
)


@dataclass(slots=True)
class Cell:
    """What is recorded of one rule on one day."""

    rule_id: str
    kind: str
    owner_id: str
    counts: dict[Status, int] = field(default_factory=dict)
    first: datetime | None = None
    last: datetime | None = None
    revision: int = 0
    last_event: datetime | None = None
    entries: tuple[Entry, ...] | None = None
    """All of it; None where it is more than FOLD_ABOVE."""
    ahead: tuple[tuple[datetime, bool], ...] = ()
    """What was due in the future when this was read, and whether it still waits for its time."""

    @property
    def total(self) -> int:
        return sum(self.counts.values())


def status_of(outcome: str, running: bool) -> Status:
    """An occurrence's status in the calendar."""
    found: Status = "running" if running else outcome  # type: ignore[assignment]  # kept as text in the table
    return found


def to_entry(row: Any, plan: Plan | None) -> Entry:
    """The entry of a row of `_COLUMNS`."""
    status = status_of(row.outcome, row.running)
    return Entry(
        event_id=entry_id_of_key(row.rule_id, row.key, row.due),
        source=row.kind,
        source_ref=row.rule_id,
        owner_id=row.owner_id,
        title=plan.title if plan else row.rule_id,
        status=status,
        scheduled_at_utc=row.due,
        running=row.running,
        cause=row.cause,
        reason=row.reason,
        run_id=row.run_id,
        started_at=row.started_at,
        ended_at=row.ended_at,
        rescheduled_from=origin_of(row.rule_id, row.key),
        version=row.revision,
        last_event_at_utc=row.ended_at or row.started_at,
        actions=actions_for(status, plan),
    )


async def read_cells(
    session: AsyncSession,
    plans: Mapping[str, Plan],
    first: date,
    until: date,
    now: datetime,
    rules: Collection[str] | None = None,
) -> dict[CellKey, Cell]:
    """The cells of the days from `first` up to `until` that have anything, of all rules or only of some."""
    cells: dict[CellKey, Cell] = {}
    for some in _portions(rules):
        within = _within(first, until, some)
        found = await _count(session, within)
        few = {rule_id for (rule_id, _), cell in found.items() if cell.total <= FOLD_ABOVE}
        singles: defaultdict[CellKey, list[Entry]] = defaultdict(list)
        for named in _portions(few):
            for entry in await read_entries(session, _within(first, until, named), plans):
                singles[entry.source_ref, entry.scheduled_at_utc.date()].append(entry)
        for key, cell in found.items():
            # What was recorded between the two queries is counted when it is asked for next.
            if cell.total <= FOLD_ABOVE:
                cell.entries = tuple(singles[key])
        ahead = select(col(_one.rule_id), col(_one.due), col(_one.outcome), col(_one.running)).where(
            *within, col(_one.due) > now
        )
        for row in (await session.execute(ahead.order_by(col(_one.due)))).all():
            known = found.get((row.rule_id, row.due.date()))
            if known is not None:
                known.ahead = (*known.ahead, (row.due, row.outcome == "expected" and not row.running))
        cells |= found
    return cells


async def read_entries(
    session: AsyncSession, conditions: Iterable[Any], plans: Mapping[str, Plan], limit: int | None = None
) -> list[Entry]:
    """The occurrences that meet these conditions on `Occurrence`, by due time."""
    query: Select[Any] = select(*_COLUMNS).where(*conditions).order_by(col(_one.due), col(_one.id)).limit(limit)
    rows = (await session.execute(query)).all()
    return [to_entry(row, plans.get(row.rule_id)) for row in rows]


async def read_stasis(session: AsyncSession, plans: Mapping[str, Plan], rules: Any) -> tuple[list[Entry], int]:
    """What waits for somebody's decision, the oldest first, and how much it is in all. `rules`: a condition."""
    missed = [_OPEN, col(_one.outcome) == "missed", *([] if rules is None else [rules])]
    found = await read_entries(session, missed, plans, STASIS_LIMIT)
    if len(found) < STASIS_LIMIT:
        return found, len(found)
    return found, int(await session.scalar(select(func.count()).select_from(_one).where(*missed)) or 0)


async def read_running(session: AsyncSession, plans: Mapping[str, Plan], rules: Any) -> list[Entry]:
    """What runs now, the oldest due first."""
    # Not only of what is open: somebody may run once more what has an outcome.
    running = [col(_one.running), *([] if rules is None else [rules])]
    return await read_entries(session, running, plans, STASIS_LIMIT)


async def _count(session: AsyncSession, within: Sequence[Any]) -> dict[CellKey, Cell]:
    cells: dict[CellKey, Cell] = {}
    day = func.date(col(_one.due))  # both databases count days in UTC here
    query = (
        select(
            col(_one.rule_id),
            day,
            func.max(col(_one.kind)),
            func.max(col(_one.owner_id)),
            col(_one.outcome),
            col(_one.running),
            func.count(),
            func.min(col(_one.due)),
            func.max(col(_one.due)),
            func.max(col(_one.revision)),
            func.max(col(_one.ended_at)),
            func.max(col(_one.started_at)),
        )
        .where(*within)
        .group_by(col(_one.rule_id), day, col(_one.outcome), col(_one.running))
    )
    for rule_id, day_, kind, owner, outcome, running, count, first, last, revision, ended, started in (
        await session.execute(query)
    ).all():
        key = (rule_id, date.fromisoformat(str(day_)))
        cell = cells.get(key)
        if cell is None:
            cell = cells[key] = Cell(rule_id, kind, owner)
        status = status_of(outcome, running)
        cell.counts[status] = cell.counts.get(status, 0) + count
        cell.first, cell.last = min(cell.first or first, first), max(cell.last or last, last)
        cell.revision = max(cell.revision, revision)
        told = [at for at in (ended, started, cell.last_event) if at is not None]
        cell.last_event = max(told, default=None)
        cell.kind, cell.owner_id = max(cell.kind, kind), max(cell.owner_id, owner)
    return cells


def _within(first: date, until: date, rules: Collection[str] | None) -> list[Any]:
    start, end = midnight(first), midnight(until)
    named = [] if rules is None else [col(_one.rule_id).in_(rules)]
    return [col(_one.due) >= start, col(_one.due) < end, *named]


def midnight(day: date) -> datetime:
    """The beginning of a day, in UTC."""
    return datetime(day.year, day.month, day.day, tzinfo=UTC)


def _portions(rules: Collection[Any] | None) -> Iterable[list[Any] | None]:
    if rules is None:
        yield None
        return
    ordered = sorted(rules)
    for first in range(0, len(ordered), _AT_ONCE):
        yield ordered[first : first + _AT_ONCE]
