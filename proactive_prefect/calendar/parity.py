"""The calendar computed from nothing: every occurrence of the account read one by one, every due time walked to.

It keeps nothing, counts nothing in the database and knows no shortcuts, so it is slow, and what the projection must
equal. With the projection switched off it is what answers.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, datetime
from typing import Any

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from ..ledger.tables import Occurrence, RuleVersion
from ..rules.spans import Span
from ..rules.timing import due_between
from .entries import FOLD_ABOVE, Asked, CalendarEvents, Entry
from .past import Cell, CellKey, midnight, read_entries
from .plans import Plan, plan_of
from .rows import DAY, by_due, rows_of_day, wanted

log = logging.getLogger("proactive.calendar")

_MOST_A_DAY = 100_000  # more than one each second
SAMPLE = 10


@dataclass(frozen=True, slots=True)
class WalkedPlan(Plan):
    """A plan that walks through a rule's due times one after another."""

    def due(self, since: datetime, until: datetime, keep: int) -> Span:
        """As `Plan.due`."""
        if self.timing is None or self.status != "active":
            return Span()
        start, end = self.rule.start_at, self.rule.end_at
        due = [
            at
            for at in due_between(self.timing, since, until, _MOST_A_DAY)
            if (start is None or at >= start) and (end is None or at < end)
        ]
        if not due:
            return Span()
        return Span(len(due), due[0], due[-1], tuple(due) if len(due) <= keep else ())


async def recompute(session: AsyncSession, asked: Asked, now: datetime) -> tuple[list[Entry], list[Entry]]:
    """The single entries and the days' rows of that part of the calendar."""
    plans = await _plans(session)
    first, until = asked.days
    within = [col(Occurrence.due) >= midnight(first), col(Occurrence.due) < midnight(until)]
    if asked.rules:
        within.append(col(Occurrence.rule_id).in_(sorted(asked.rules)))
    cells = await _cells(session, within, plans, now)
    singles: list[Entry] = []
    folded: list[Entry] = []
    day = first
    while day < until:
        for rule_id in sorted({*plans, *(rule_id for rule_id, at in cells if at == day)}):
            if asked.rules and rule_id not in asked.rules:
                continue
            row = rows_of_day(day, plans.get(rule_id), cells.get((rule_id, day)), now, FOLD_ABOVE)
            if isinstance(row, Entry):
                folded.append(row)
            else:
                singles.extend(row)
        day += DAY
    return sorted(wanted(singles, asked), key=by_due), sorted(wanted(folded, asked), key=by_due)


@dataclass
class Parity:
    """What comparing the projection with a recomputation has shown since this process started."""

    compared: int = 0
    differences: int = 0
    last_difference: str = ""
    rng: random.Random = field(default_factory=random.Random)

    async def compare(self, session: AsyncSession, asked: Asked, given: CalendarEvents) -> bool:
        """Compare some of the rules of an answer, at random, with a recomputation of them; whether they are equal."""
        rules = sorted({one.source_ref for one in (*given.events, *given.always_running)})
        some = frozenset(self.rng.sample(rules, min(SAMPLE, len(rules))))
        narrowed = replace(asked, rules=some or asked.rules)
        singles, folded = await recompute(session, narrowed, given.at)
        self.compared += 1
        mine = [one for one in (*given.events, *given.always_running) if one.source_ref in some]
        different = first_difference(mine, [*singles, *folded])
        if different is not None:
            self.differences += 1
            self.last_difference = different
            log.warning("calendar.differs event_id=%s version=%d", different, given.version)
        return different is None


def first_difference(one: Iterable[Entry], other: Iterable[Entry]) -> str | None:
    """The id of an entry that the two do not have alike; None where there is none."""
    ones, others = ({entry.event_id: entry for entry in entries} for entries in (one, other))
    return next((key for key in sorted(ones.keys() | others.keys()) if ones.get(key) != others.get(key)), None)


async def _plans(session: AsyncSession) -> dict[str, Plan]:
    latest: dict[str, RuleVersion] = {}
    for version in (await session.scalars(select(RuleVersion).order_by(col(RuleVersion.since)))).all():
        latest[version.rule_id] = version
    plans: dict[str, Plan] = {}
    for version in latest.values():
        plan = plan_of(version)
        if plan is not None:
            plans[plan.rule_id] = WalkedPlan(
                **{name: getattr(plan, name) for name in Plan.__dataclass_fields__},
            )
    return plans


async def _cells(
    session: AsyncSession, within: Sequence[Any], plans: dict[str, Plan], now: datetime
) -> dict[CellKey, Cell]:
    found: dict[CellKey, list[Entry]] = {}
    kinds: dict[CellKey, list[tuple[str, str]]] = {}
    for entry in await read_entries(session, within, plans):
        key: tuple[str, date] = (entry.source_ref, entry.scheduled_at_utc.date())
        found.setdefault(key, []).append(entry)
        kinds.setdefault(key, []).append((entry.source, entry.owner_id))
    cells = {}
    for key, entries in found.items():
        cell = Cell(key[0], max(kind for kind, _ in kinds[key]), max(owner for _, owner in kinds[key]))
        for one in entries:
            cell.counts[one.status] = cell.counts.get(one.status, 0) + 1
        cell.first, cell.last = entries[0].scheduled_at_utc, entries[-1].scheduled_at_utc
        cell.revision = max(one.version for one in entries)
        told = [at for one in entries for at in (one.started_at, one.ended_at) if at is not None]
        cell.last_event = max(told, default=None)
        cell.entries = tuple(entries) if len(entries) <= FOLD_ABOVE else None
        cell.ahead = tuple(
            (one.scheduled_at_utc, one.status == "expected") for one in entries if one.scheduled_at_utc > now
        )
        cells[key] = cell
    return cells
