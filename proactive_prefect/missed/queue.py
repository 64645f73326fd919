"""The stasis queue: what was missed and waits, and what will become of each if nobody does anything."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Literal, assert_never

from pydantic import BaseModel, Field
from sqlalchemy import ColumnElement, exists, func, or_, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from ..firing.gate import Decision, Hold, Run, Skip
from ..ledger.tables import LeftOut, Occurrence, Resolution
from ..ledger.tables import Run as FlowRun
from ..ledger.versions import latest_versions
from ..prefect_api.links import run_url
from ..settings import Settings
from .carry import WAITS, count_in_flight, turns
from .expected import read_rule
from .plan import OFF, make_plan

LIMIT = 200
_ON_MISSED = {
    "ask": "waits for a decision",
    "run": "runs in its turn",
    "latest": "runs in its turn, if it is the latest",
    "skip": "is skipped",
}
# How long the list goes on saying what was left out.
_REMEMBERED = timedelta(days=30)


class MissedItem(BaseModel):
    """One occurrence that was missed and has not been run, rescheduled or deleted."""

    occurrence_id: int
    rule_id: str
    kind: str
    owner_id: str
    due: datetime
    late_by: float = Field(description="Seconds since it was due.")
    reason: str
    on_missed: str
    priority: str
    waits_for: Literal["decision", "turn"] = Field(
        description="decision: somebody's. turn: it is approved (by somebody, or by the rule) and goes when it may."
    )
    turn: int | None = Field(default=None, description="Which it is of those that wait for their turn, from 1 on.")
    stale_at: datetime | None = Field(default=None, description="When it is skipped, if nobody has decided by then.")
    run_id: str | None
    url: str | None = Field(default=None, description="The run in Prefect's UI.")


class LeftOutItem(BaseModel):
    """Due times that were missed and not looked into."""

    rule_id: str
    since: datetime
    until: datetime
    count: int
    reason: str


class Preview(BaseModel):
    """A due time that was not kept and that no round of the sweep has found yet."""

    rule_id: str
    due: datetime
    will: str = Field(description="What becomes of it.")


class MissedQueue(BaseModel):
    """What waits, oldest first; `total` counts also what is beyond the list."""

    at: datetime
    total: int
    at_once: int = Field(description="How many approved runs go at once.")
    in_flight: int = Field(description="How many approved runs have been let go and have not ended.")
    items: list[MissedItem]
    left_out: list[LeftOutItem]


async def read_queue(
    session: AsyncSession,
    settings: Settings,
    now: datetime,
    *,
    rule_ids: Sequence[str] | None = None,
    before: datetime | None = None,
    limit: int = LIMIT,
    offset: int = 0,
) -> MissedQueue:
    """The queue at `now`, of these rules and due before then, if given."""
    waiting = await turns(session)
    turn_of = {turn.occurrence_id: number for number, turn in enumerate(waiting, 1)}
    # Not the ids of the turns: there may be more of them than a statement takes parameters.
    has_turn = exists().where(col(Resolution.occurrence_id) == col(Occurrence.id), WAITS)
    wanted: list[ColumnElement[bool]] = [
        col(Occurrence.outcome).in_(("missed", "approved")),
        or_(col(Occurrence.outcome) == "missed", has_turn),
    ]
    if rule_ids is not None:
        wanted.append(col(Occurrence.rule_id).in_(list(rule_ids)))
    if before is not None:
        wanted.append(col(Occurrence.due) < before)
    total = (await session.scalars(select(func.count()).select_from(Occurrence).where(*wanted))).one()
    rows = await session.execute(
        select(Occurrence, col(FlowRun.held_message))
        .outerjoin(FlowRun, col(FlowRun.run_id) == col(Occurrence.run_id))
        .where(*wanted)
        .order_by(col(Occurrence.due), col(Occurrence.id))
        .limit(limit)
        .offset(offset)
    )
    latest = await latest_versions(session)
    rules = {rule_id: read_rule(version.snapshot) for rule_id, version in latest.items()}
    items = []
    for occurrence, message in rows.tuples():
        assert occurrence.id is not None  # it comes from the database
        rule = rules.get(occurrence.rule_id)
        on_missed = rule.on_missed if rule else "ask"
        turn = turn_of.get(occurrence.id)
        is_off = occurrence.rule_id in latest and latest[occurrence.rule_id].status in OFF
        by_itself = turn is not None or (on_missed != "ask" and not is_off)
        items.append(
            MissedItem(
                occurrence_id=occurrence.id,
                rule_id=occurrence.rule_id,
                kind=occurrence.kind,
                owner_id=occurrence.owner_id,
                due=occurrence.due,
                late_by=(now - occurrence.due).total_seconds(),
                reason=message or occurrence.reason,
                on_missed=on_missed,
                priority=rule.priority if rule else "normal",
                waits_for="turn" if by_itself else "decision",
                turn=turn,
                stale_at=occurrence.due + rule.stale_after if rule and rule.stale_after and not by_itself else None,
                run_id=occurrence.run_id,
                url=run_url(occurrence.run_id) if occurrence.run_id else None,
            )
        )
    return MissedQueue(
        at=now,
        total=total,
        at_once=settings.missed_at_once,
        in_flight=await count_in_flight(session),
        items=items,
        left_out=await _left_out(session, now, rule_ids),
    )


async def preview(
    session: AsyncSession, settings: Settings, now: datetime, *, rule_ids: Sequence[str] | None = None
) -> list[Preview]:
    """What the next round of the sweep finds, if nothing runs before it does, and what becomes of each."""
    plan = await make_plan(session, now, settings.missed_limit)
    latest = await latest_versions(session)
    found = [
        Preview(rule_id=gap.rule.id, due=gap.due, will=_will(gap.decision, gap.rule.on_missed)) for gap in plan.gaps
    ]
    for late in plan.late:
        rule = read_rule(latest[late.rule_id].snapshot) if late.rule_id in latest else None
        found.append(Preview(rule_id=late.rule_id, due=late.due, will=_ON_MISSED[rule.on_missed if rule else "ask"]))
    wanted = None if rule_ids is None else set(rule_ids)
    return sorted((one for one in found if wanted is None or one.rule_id in wanted), key=lambda one: one.due)


def _will(decision: Decision, on_missed: str) -> str:
    match decision:
        case Skip():
            return f"is skipped: {decision}"
        case Hold() | Run():
            return _ON_MISSED[on_missed]
        case _:
            assert_never(decision)


async def _left_out(session: AsyncSession, now: datetime, rule_ids: Sequence[str] | None) -> list[LeftOutItem]:
    query = select(LeftOut).where(col(LeftOut.recorded_at) > now - _REMEMBERED).order_by(col(LeftOut.since))
    if rule_ids is not None:
        query = query.where(col(LeftOut.rule_id).in_(list(rule_ids)))
    return [
        LeftOutItem(rule_id=one.rule_id, since=one.since, until=one.until, count=one.count, reason=one.reason)
        for one in (await session.scalars(query)).all()
    ]
