"""What a round of the sweep would do, from the ledger alone: it is looked at before anything is done."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy import func, or_, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from ..firing.gate import Decision, Facts, RunFact, Skip, decide
from ..firing.gate import Occurrence as Moment
from ..ledger.cursors import BEGAN, read_cursor
from ..ledger.tables import Occurrence, RuleVersion, Run
from ..rules.models import Rule
from ..rules.timing import due_between
from .expected import Due, Omission, expected, read_rule

SWEPT = "swept"
"""Up to when every due time has been accounted for."""
OFF = ("disabled", "deleted")
"""What a rule is of which nothing runs any more by its own `on_missed`."""
# A run that was claimed this long ago and has not begun will not: who claimed it is gone. Images take minutes to load.
NEVER_BEGUN = timedelta(minutes=15)
# A run at work ends itself within its timeouts; past them by this much, its process is gone.
ABANDONED = timedelta(minutes=15)
# What was told late, or was not committed yet when the last round looked.
_MARGIN = timedelta(minutes=1)
_NOBODY = UUID(int=0)
_RAN = ("completed", "quiet", "failed", "timed_out", "cancelled", "unknown")
_LATER = 1000
_BREATH = 10  # rules between two pauses for what else this process does


@dataclass(frozen=True)
class Gap:
    """A due time that has no run, and what the gate says about it. `deployment_id` is where its run would belong."""

    rule: Rule
    snapshot: str
    due: datetime
    deployment_id: str | None
    decision: Decision


@dataclass(frozen=True)
class LeftOutOf:
    """Due times of a rule that are not looked into."""

    rule: Rule
    omission: Omission


@dataclass(frozen=True)
class Late:
    """A run that nobody has started in time."""

    run_id: str
    rule_id: str
    due: datetime


@dataclass(frozen=True)
class Plan:
    """One round: the gaps, by due time; what is left out; the late runs, the oldest first; and the ids of runs at work
    that should have ended.
    """

    at: datetime
    gaps: tuple[Gap, ...] = ()
    left_out: tuple[LeftOutOf, ...] = ()
    late: tuple[Late, ...] = ()
    abandoned: tuple[str, ...] = ()

    @property
    def is_empty(self) -> bool:
        """Nothing is missing."""
        return not (self.gaps or self.left_out or self.late or self.abandoned)


async def make_plan(session: AsyncSession, now: datetime, limit: int) -> Plan:
    """What is missing at `now`; of one rule at most `limit` due times. Empty until the account has begun."""
    began = await read_cursor(session, BEGAN)
    if began is None:
        return Plan(now)
    cursor = await read_cursor(session, SWEPT) or began
    versions = await _versions(session)
    latest = {rule_id: read_rule(mine[-1].snapshot) for rule_id, mine in versions.items()}
    since = {rule_id: max(began, _not_over(mine, cursor - _MARGIN)) for rule_id, mine in versions.items()}
    known = await _known(session, min(since.values(), default=now))
    gaps: list[Gap] = []
    left_out: list[LeftOutOf] = []
    for number, (rule_id, mine) in enumerate(versions.items()):
        if number % _BREATH == _BREATH - 1:
            await asyncio.sleep(0)
        found = expected(mine, since[rule_id], now, known=frozenset(known[rule_id]), limit=limit)
        rule = latest[rule_id]
        if rule is not None:
            left_out += [LeftOutOf(rule, one) for one in found.omitted]
        if found.due:
            gaps += await _judge(session, mine[-1], found.due, now)
    gaps.sort(key=lambda gap: (gap.due, gap.rule.id))
    late, abandoned = await _late(session, latest, now), await _abandoned(session, latest, now)
    return Plan(now, tuple(gaps), tuple(left_out), late, abandoned)


def _not_over(versions: Sequence[RuleVersion], at: datetime) -> datetime:
    """From when on a due time of the rule may not have been judged by `at`: its grace, as it was then, was not over."""
    ends = [*(one.since for one in versions[1:]), None]
    graces = [rule.grace if (rule := read_rule(one.snapshot)) else timedelta(0) for one in versions]
    return at - max(grace for grace, end in zip(graces, ends, strict=True) if end is None or end + grace > at)


async def _versions(session: AsyncSession) -> dict[str, list[RuleVersion]]:
    found: dict[str, list[RuleVersion]] = {}
    query = select(RuleVersion).order_by(col(RuleVersion.rule_id), col(RuleVersion.since))
    for version in (await session.scalars(query)).all():
        found.setdefault(version.rule_id, []).append(version)
    return found


async def _known(session: AsyncSession, since: datetime) -> defaultdict[str, set[int]]:
    """The seconds at which each rule's own due times are accounted for, whatever became of them."""
    known: defaultdict[str, set[int]] = defaultdict(set)
    query = select(col(Occurrence.rule_id), col(Occurrence.due)).where(
        col(Occurrence.due) >= since, col(Occurrence.cause) == "schedule"
    )
    for rule_id, due in (await session.execute(query)).tuples():
        known[rule_id].add(int(due.timestamp()))
    return known


async def _judge(session: AsyncSession, latest: RuleVersion, found: Sequence[Due], now: datetime) -> list[Gap]:
    """What the gate says about these due times of one rule."""
    rule = found[-1].rule
    runs = await _runs(session, rule, found[0].at)
    ran = await _count_ran(session, rule.id) if any(one.rule.max_runs for one in found) else None
    later = [one.at for one in found]
    if rule.timing is not None:
        later += due_between(rule.timing, found[-1].at + timedelta(microseconds=1), now, _LATER)
    facts = Facts(now=now, runs=runs, ran_before=ran, later_due=later)
    deployment = latest.deployment_id if latest.status != "deleted" else None
    gaps = []
    for one in found:
        decision = decide(one.rule, Moment(rule.id, one.at, _NOBODY, "schedule"), facts)
        if deployment is None and not isinstance(decision, Skip):
            decision = Skip("disabled", "it was missed, and the rule has been deleted since")
        if latest.status in OFF and one.rule.on_missed != "ask" and not isinstance(decision, Skip):
            decision = Skip("disabled", "it was missed, and the rule has been switched off since")
        gaps.append(Gap(one.rule, one.snapshot, one.at, deployment, decision))
    return gaps


async def _runs(session: AsyncSession, rule: Rule, since: datetime) -> list[RunFact]:
    """The runs of the rule that could have stood in the way of what was due from `since` on."""
    back = since - (rule.cooldown or timedelta(0))
    query = select(Occurrence).where(
        col(Occurrence.rule_id) == rule.id,
        col(Occurrence.started_at).is_not(None),
        or_(col(Occurrence.running), col(Occurrence.ended_at) >= back),
    )
    return [
        RunFact(
            run_id=UUID(one.run_id) if one.run_id else _NOBODY,
            due=one.due,
            scheduled=one.cause == "schedule",
            stage="running" if one.running else "ran",
            began=one.started_at,
            ended=None if one.running else one.ended_at,
        )
        for one in (await session.scalars(query)).all()
    ]


async def _count_ran(session: AsyncSession, rule_id: str) -> int:
    query = select(func.count()).where(col(Occurrence.rule_id) == rule_id, col(Occurrence.outcome).in_(_RAN))
    return (await session.scalars(query)).one()


async def _late(session: AsyncSession, rules: dict[str, Rule | None], now: datetime) -> tuple[Late, ...]:
    """The runs that wait past their grace and were never started, the oldest first."""
    query = (
        select(col(Run.run_id), col(Occurrence.rule_id), col(Occurrence.due))
        .join(Occurrence, col(Run.occurrence_id) == col(Occurrence.id))
        .where(
            col(Occurrence.cause) == "schedule",
            col(Occurrence.due) < now,
            or_(
                (col(Occurrence.outcome) == "expected") & (col(Run.last_type) == "SCHEDULED"),
                col(Occurrence.outcome).in_(("expected", "approved"))
                & (col(Run.last_type) == "PENDING")
                & (col(Run.last_at) < now - NEVER_BEGUN),
            ),
            col(Run.first_running_at).is_(None),
            col(Run.deleted_at).is_(None),
        )
        .order_by(col(Occurrence.due))
    )
    return tuple(
        Late(run_id, rule_id, due)
        for run_id, rule_id, due in (await session.execute(query)).tuples()
        if (rule := rules.get(rule_id)) is None or due + rule.grace < now
    )


async def _abandoned(session: AsyncSession, rules: dict[str, Rule | None], now: datetime) -> tuple[str, ...]:
    query = (
        select(col(Run.run_id), col(Occurrence.rule_id), col(Run.last_at))
        .join(Occurrence, col(Run.occurrence_id) == col(Occurrence.id))
        .where(
            col(Occurrence.running),
            col(Run.last_type) == "RUNNING",
            col(Run.last_at) < now - ABANDONED,
            col(Run.deleted_at).is_(None),
        )
    )
    return tuple(
        run_id
        for run_id, rule_id, began in (await session.execute(query)).tuples()
        if (rule := rules.get(rule_id)) is not None and began is not None and began + longest(rule) + ABANDONED < now
    )


def longest(rule: Rule) -> timedelta:
    """The longest time that a run of the rule can be at work: all attempts, and the delays between them."""
    if isinstance(rule.retry_delay, list):
        delays = [rule.retry_delay[min(nth, len(rule.retry_delay) - 1)] for nth in range(rule.retries)]
    else:
        seconds = rule.retry_delay.total_seconds()
        delays = [timedelta(seconds=min(seconds * rule.backoff**nth, 86_400)) for nth in range(rule.retries)]
    return (rule.retries + 1) * rule.timeout + sum(delays, timedelta(0)) * (1 + rule.jitter)
