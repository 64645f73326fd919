"""Carries out in Prefect what was decided about missed occurrences; approved runs go in turn.

Catching up is paced: of all approved runs only so many (`PROACTIVE_MISSED_AT_ONCE`) are let go before one of them has
ended; high priority first, then the oldest. Of a rule that does not allow overlap, one at a time, and none while it is
at work, since the gate would have to skip it. A place is taken in the ledger, in one transaction, before Prefect is
told: so the bound holds for any number of processes.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from sqlalchemy import ColumnElement, or_, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from ..errors import PrefectError
from ..ledger.db import Ledger
from ..ledger.log import lock_log
from ..ledger.tables import OPEN, Occurrence, Resolution, Run
from ..ledger.versions import latest_versions
from ..prefect_api import PrefectApi
from ..prefect_api.client import Refused
from ..prefect_api.missed import FINAL, create_rescheduled, drop_run, resume_run
from ..prefect_api.runs import read_run
from ..rules.models import Rule
from ..settings import Settings
from .expected import read_rule

log = logging.getLogger("proactive.missed")

_RANK = {"high": 0, "normal": 1, "low": 2}
# A run that was let go and is held after this: the process died before it told Prefect, or the gate held it again,
# since its rule was at work.
_AGAIN = timedelta(seconds=30)
_BATCH = 50  # calls to Prefect in one go: who asks need not wait for more

_APPROVED = col(Resolution.action) == "approve_backfill_run"
_NOT_CARRIED = col(Resolution.carried_at).is_(None)
_OTHERS: ColumnElement[bool] = ~_APPROVED & _NOT_CARRIED
WAITS: ColumnElement[bool] = _APPROVED & _NOT_CARRIED & (col(Occurrence.outcome) == "approved")
"""Of an occurrence and its resolution: approved, and not let go yet. One that was cancelled meanwhile has no turn."""


@dataclass(frozen=True)
class Turn:
    """An approved run that waits to be let go."""

    occurrence_id: int
    rule_id: str
    due: datetime
    run_id: str | None


async def carry_out(ledger: Ledger, api: PrefectApi, settings: Settings) -> bool:
    """Carry out decisions that are not carried out yet, and let go as many approved runs as may go now.

    Whether there is more to carry out at once: one call does not take too long. Raises PrefectError.
    """
    more = await _carry_others(ledger, api)
    async with ledger.write() as session:
        await lock_log(session)
        for stuck, run_id in await _stuck(session, datetime.now(UTC) - _AGAIN):
            stuck.run_id, stuck.carried_at = run_id, None
        await session.flush()
        room = settings.missed_at_once - await count_in_flight(session)
        busy = await _busy_rules(session)
        rules = await _rules(session)
        taken: list[Turn] = []
        for turn in await turns(session):
            if len(taken) >= room:
                break
            if turn.rule_id in busy and not _may_overlap(rules.get(turn.rule_id)):
                continue
            busy.add(turn.rule_id)
            taken.append(turn)
        now = datetime.now(UTC)
        for turn in taken:
            (await _resolution(session, turn.occurrence_id)).carried_at = now
    for number, turn in enumerate(taken):
        try:
            await _let_go(api, turn.run_id)
        except PrefectError:
            async with ledger.write() as session:  # others may have these turns until Prefect answers again
                for later in taken[number:]:
                    (await _resolution(session, later.occurrence_id)).carried_at = None
            raise
    return more


async def _let_go(api: PrefectApi, run_id: str | None) -> None:
    if run_id is not None:
        accepted = await resume_run(api, run_id)
        log.info("missed.released run=%s accepted=%s", run_id, str(accepted).lower())


async def has_more(ledger: Ledger) -> bool:
    """Whether anything waits to be carried out, or was let go and may not have been told to Prefect."""
    async with ledger.read() as session:
        waiting = await session.scalar(
            select(col(Resolution.id))
            .join(Occurrence, col(Resolution.occurrence_id) == col(Occurrence.id))
            .where(or_(_OTHERS, WAITS))
            .limit(1)
        )
        return waiting is not None or bool(await _stuck(session, datetime.now(UTC) - _AGAIN))


async def turns(session: AsyncSession) -> list[Turn]:
    """The approved runs that wait to be let go, in their order."""
    rows = await session.execute(
        select(Occurrence, Resolution)
        .join(Resolution, col(Resolution.occurrence_id) == col(Occurrence.id))
        .where(WAITS)
    )
    rules = await _rules(session)
    found = [
        Turn(resolution.occurrence_id, occurrence.rule_id, occurrence.due, resolution.run_id)
        for occurrence, resolution in rows.tuples()
    ]
    return in_order(found, rules)


def in_order(found: Iterable[Turn], rules: dict[str, Rule]) -> list[Turn]:
    """High priority first, then the oldest."""

    def rank(turn: Turn) -> tuple[int, datetime, str]:
        rule = rules.get(turn.rule_id)
        return (_RANK[rule.priority if rule else "normal"], turn.due, turn.rule_id)

    return sorted(found, key=rank)


async def count_in_flight(session: AsyncSession) -> int:
    """How many approved runs have been let go and have not ended."""
    rows = await session.scalars(
        select(col(Occurrence.id))
        .join(Resolution, col(Resolution.occurrence_id) == col(Occurrence.id))
        .where(
            col(Resolution.action) == "approve_backfill_run",
            col(Resolution.carried_at).is_not(None),
            or_(col(Occurrence.outcome).in_(OPEN), col(Occurrence.running)),
        )
    )
    return len(rows.all())


async def _busy_rules(session: AsyncSession) -> set[str]:
    """The rules that are at work, or have an approved run on its way."""
    rows = await session.scalars(
        select(col(Occurrence.rule_id))
        .outerjoin(Resolution, col(Resolution.occurrence_id) == col(Occurrence.id))
        .where(
            or_(
                col(Occurrence.running),
                (col(Occurrence.outcome) == "approved") & col(Resolution.carried_at).is_not(None),
            )
        )
    )
    return set(rows.all())


async def _stuck(session: AsyncSession, before: datetime) -> list[tuple[Resolution, str]]:
    """The approvals that were carried out and whose run is held all the same, with its id: they get another turn.

    It is another run than was approved where that one was deleted and made again, by a process that died before it
    wrote that down.
    """
    rows = await session.execute(
        select(Resolution, col(Run.run_id))
        .join(Occurrence, col(Resolution.occurrence_id) == col(Occurrence.id))
        .join(Run, col(Occurrence.run_id) == col(Run.run_id))
        .where(
            col(Resolution.action) == "approve_backfill_run",
            col(Resolution.carried_at) < before,
            col(Run.last_type) == "PAUSED",
            col(Run.held_at) == col(Run.last_at),
            col(Run.deleted_at).is_(None),
        )
    )
    return list(rows.tuples())


async def _carry_others(ledger: Ledger, api: PrefectApi) -> bool:
    async with ledger.read() as session:
        rows = await session.execute(
            select(Resolution, Occurrence)
            .join(Occurrence, col(Resolution.occurrence_id) == col(Occurrence.id))
            .where(_OTHERS)
            .order_by(col(Resolution.id))
            .limit(_BATCH)
        )
        waiting = list(rows.tuples())
    passing: Refused | None = None
    for resolution, occurrence in waiting:
        if resolution.run_id is not None:
            try:
                await _carry(api, resolution, occurrence)
            except Refused as refused:
                if refused.status not in FINAL:  # it passes: the decision stands, and is carried out then
                    passing = refused
                    continue
                # What is refused for good is said, rather than asked for ever.
                log.error("missed.carry refused rule=%s due=%s: %s", occurrence.rule_id, occurrence.due, refused.detail)
        async with ledger.write() as session:
            (await _resolution(session, resolution.occurrence_id)).carried_at = datetime.now(UTC)
    if passing is not None:
        raise passing
    return len(waiting) == _BATCH


async def _carry(api: PrefectApi, resolution: Resolution, occurrence: Occurrence) -> None:
    assert resolution.run_id is not None
    if resolution.action == "delete_missed":
        await drop_run(api, resolution.run_id, f"Missed, and deleted by {resolution.resolved_by}.")
        return
    assert resolution.target is not None  # a reschedule has one
    run = await read_run(api, resolution.run_id)
    if run.deployment_id is None:
        raise Refused(404, "its deployment was deleted", f"run {run.id}")
    made = await create_rescheduled(
        api, str(run.deployment_id), occurrence.rule_id, run.parameters, resolution.target, occurrence.key
    )
    text = f"Rescheduled to {resolution.target.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC, as {made.name}."
    await drop_run(api, run.id, text, name="Rescheduled")


async def _resolution(session: AsyncSession, occurrence_id: int) -> Resolution:
    found = await session.scalars(select(Resolution).where(col(Resolution.occurrence_id) == occurrence_id))
    return found.one()


async def _rules(session: AsyncSession) -> dict[str, Rule]:
    latest = await latest_versions(session)
    return {rule_id: rule for rule_id, one in latest.items() if (rule := read_rule(one.snapshot)) is not None}


def _may_overlap(rule: Rule | None) -> bool:
    return rule is not None and rule.on_overlap == "allow"
