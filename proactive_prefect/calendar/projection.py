"""The calendar's read model: kept in memory for the days that people look at, and brought up to date by what changed.

The account numbers its changes (`Occurrence.revision`). What has changed since the last look is read by that number,
and the cells (one rule, one day) that it belongs to are read again, each by an index: so the cost of a change depends
neither on the number of rules nor on the length of the account. Nothing here is kept for good: a new process reads the
days that it is asked for, and `version` means the same in every process.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from typing import Any

from sqlalchemy import and_, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from ..ledger.db import Ledger
from ..ledger.log import read_head
from ..ledger.tables import Event, Occurrence, RuleVersion
from ..ledger.versions import latest_versions
from .entries import FOLD_ABOVE, Asked, CalendarEvents, Entry
from .past import Cell, read_cells, read_running, read_stasis
from .plans import Plan, plan_of
from .rows import DAY, Phase, by_due, phase_of, rows_of_day, wanted

log = logging.getLogger("proactive.calendar")

_MOST_CHANGES = 5_000  # beyond, what is kept is read anew
_MOST_KEPT = 200_000  # rows in memory; the days that were asked for least recently go first


@dataclass(slots=True)
class _Rows:
    """The rows of a day. They stay as they are while the day is past, or is to come."""

    phase: Phase
    singles: list[Entry] = field(default_factory=list)
    folded: list[Entry] = field(default_factory=list)


class Projection:
    """The read model of one process. Its methods may be called by any number of tasks at once."""

    def __init__(self, ledger: Ledger) -> None:
        self.version = -1
        self.last_event_seq = 0
        self.last_event_at: datetime | None = None
        self.plans: dict[str, Plan] = {}
        self.rebuilds = 0
        """How often days were read whole, rather than brought up to date."""
        self.changes = 0
        """How many changes of the account were applied."""
        self._ledger = ledger
        self._last_rule_version = 0
        self._days: OrderedDict[date, dict[str, Cell]] = OrderedDict()
        self._dirty: dict[date, set[str]] = {}
        self._rows: dict[date, _Rows] = {}
        self._weight = 0
        self._lock = asyncio.Lock()

    async def refresh(self) -> int:
        """Take in what has changed in the account; the version. Cheap, and cheaper where nothing did."""
        async with self._lock, self._ledger.read() as session:
            await self._refresh(session)
        return self.version

    async def events(self, asked: Asked, now: datetime | None = None) -> CalendarEvents:
        """The part of the calendar that was asked for, as of now. Raises InputError as `Asked.days` does."""
        now = now or datetime.now(UTC)
        first, until = asked.days
        async with self._lock:
            async with self._ledger.read() as session:
                await self._refresh(session)
                await self._load(session, first, until, now)
                narrowed = _narrowed(asked)
                stasis, total = await read_stasis(session, self.plans, narrowed)
                running = await read_running(session, self.plans, narrowed)
            # In a thread, since a month of a thousand rules would keep others waiting for a moment.
            singles, folded = await asyncio.to_thread(self._gather, asked, first, until, now)
            answer = CalendarEvents(
                version=self.version,
                last_event_at_utc=self.last_event_at,
                last_event_seq=self.last_event_seq,
                at=now,
                start_utc=asked.start.astimezone(UTC),
                end_utc=asked.end.astimezone(UTC),
                events=singles,
                always_running=folded,
                stasis_queue=stasis,
                stasis_total=total,
                running=running,
                run_url=None,
            )
            self._forget(keep=first, until=until)
        return answer

    def state(self) -> dict[str, Any]:
        """How it stands, for metrics."""
        return {
            "version": self.version,
            "last_event_seq": self.last_event_seq,
            "last_event_at_utc": self.last_event_at,
            "rules": len(self.plans),
            "days": len(self._days),
            "rows": self._weight,
            "changes": self.changes,
            "rebuilds": self.rebuilds,
        }

    def drop(self) -> None:
        """Forget all days: they are read anew when they are asked for."""
        self._days.clear()
        self._dirty.clear()
        self._rows.clear()
        self._weight = 0

    async def _refresh(self, session: AsyncSession) -> None:
        head = await read_head(session)
        if head.revision == self.version and head.seq == self.last_event_seq:
            return
        if head.revision != self.version:
            await self._take_rules(session)
            await self._take_changes(session)
        last = select(col(Event.occurred_at_utc)).where(col(Event.seq) == head.seq)
        self.last_event_at = await session.scalar(last) or self.last_event_at
        self.last_event_seq, self.version = head.seq, head.revision

    async def _take_rules(self, session: AsyncSession) -> None:
        if self.version < 0:
            versions: Iterable[RuleVersion] = (await latest_versions(session)).values()
        else:
            newer = select(RuleVersion).where(col(RuleVersion.id) > self._last_rule_version)
            versions = (await session.scalars(newer.order_by(col(RuleVersion.id)))).all()
        for version in versions:
            self._rows.clear()
            assert version.id is not None  # it comes from the database
            self._last_rule_version = max(self._last_rule_version, version.id)
            known = self.plans.get(version.rule_id)
            if known is not None and known.since > version.since:
                continue  # what it was before, noted later
            plan = plan_of(version)
            if plan is None:
                self.plans.pop(version.rule_id, None)
            else:
                self.plans[version.rule_id] = plan
            for day, cells in self._days.items():  # names and actions stand in what is kept
                if version.rule_id in cells:
                    self._dirty.setdefault(day, set()).add(version.rule_id)

    async def _take_changes(self, session: AsyncSession) -> None:
        if not self._days:
            return
        query = (
            select(col(Occurrence.rule_id), col(Occurrence.due))
            .where(col(Occurrence.revision) > self.version)
            .limit(_MOST_CHANGES + 1)
        )
        changed = (await session.execute(query)).all()
        self.changes += len(changed)
        if len(changed) > _MOST_CHANGES:
            self.drop()
            return
        for rule_id, due in changed:
            if due.date() in self._days:
                self._dirty.setdefault(due.date(), set()).add(rule_id)

    async def _load(self, session: AsyncSession, first: date, until: date, now: datetime) -> None:
        days = [first + number * DAY for number in range((until - first).days)]
        for day in days:
            rules = self._dirty.get(day)
            if rules and day in self._days:
                fresh = await read_cells(session, self.plans, day, day + DAY, now, rules)
                for rule_id in rules:
                    self._put(day, rule_id, fresh.get((rule_id, day)))
            self._dirty.pop(day, None)
        for start, end in _gaps([day for day in days if day not in self._days]):
            self.rebuilds += 1
            cells = await read_cells(session, self.plans, start, end, now)
            for number in range((end - start).days):
                self._days[start + number * DAY] = {}
            for (rule_id, day), cell in cells.items():
                self._put(day, rule_id, cell)
        for day in days:
            self._days.move_to_end(day)

    def _put(self, day: date, rule_id: str, cell: Cell | None) -> None:
        cells = self._days[day]
        self._rows.pop(day, None)
        self._weight -= _weight(cells.pop(rule_id, None))
        if cell is not None:
            cells[rule_id] = cell
            self._weight += _weight(cell)

    def _gather(self, asked: Asked, first: date, until: date, now: datetime) -> tuple[list[Entry], list[Entry]]:
        singles: list[Entry] = []
        folded: list[Entry] = []
        day = first
        while day < until:
            rows = self._rows_of(day, now, asked.rules)
            singles += wanted(rows.singles, asked)
            folded += wanted(rows.folded, asked)
            day += DAY
        return singles, folded

    def _rows_of(self, day: date, now: datetime, rules: frozenset[str]) -> _Rows:
        """The rows of a day, by due time; of these rules only, where they are not made yet and some are named."""
        cells: Mapping[str, Cell] = self._days[day]
        phase = phase_of(day, now)
        kept = self._rows.get(day)
        if kept is not None and kept.phase == phase != "now":
            return kept
        due = () if phase == "past" else (one.rule_id for one in self.plans.values() if one.timing is not None)
        rows = _Rows(phase)
        for rule_id in rules or dict.fromkeys((*cells, *due)):
            row = rows_of_day(day, self.plans.get(rule_id), cells.get(rule_id), now, FOLD_ABOVE)
            if isinstance(row, Entry):
                rows.folded.append(row)
            else:
                rows.singles.extend(row)
        rows.singles.sort(key=by_due)
        rows.folded.sort(key=by_due)
        # What is recorded of a day to come changes with the hour: it becomes due.
        if not rules and phase != "now" and not (phase == "future" and cells):
            self._rows[day] = rows
        return rows

    def _forget(self, keep: date, until: date) -> None:
        while self._weight + sum(len(rows.singles) + len(rows.folded) for rows in self._rows.values()) > _MOST_KEPT:
            oldest = next(iter(self._days))
            if keep <= oldest < until:
                return  # nothing is left but what was asked for
            self._weight -= sum(_weight(cell) for cell in self._days.pop(oldest).values())
            self._dirty.pop(oldest, None)
            self._rows.pop(oldest, None)


def _narrowed(asked: Asked) -> Any:
    conditions = []
    if asked.rules:
        # As an expression, so that SQLite takes the index of what is open, and not that of all that a rule ever did.
        conditions.append(col(Occurrence.rule_id).concat("").in_(sorted(asked.rules)))
    if asked.kinds:
        conditions.append(col(Occurrence.kind).in_(sorted(asked.kinds)))
    return and_(*conditions) if conditions else None


def _weight(cell: Cell | None) -> int:
    return 0 if cell is None else max(1, len(cell.entries or ()))


def _gaps(days: list[date]) -> Iterable[tuple[date, date]]:
    """Days in a row, as their first and the one after their last."""
    start = 0
    for number in range(1, len(days) + 1):
        if number == len(days) or days[number] - days[number - 1] != DAY:
            yield days[start], days[number - 1] + DAY
            start = number
