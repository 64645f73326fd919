"""Changes of the calendar from their preview to Prefect: kept in the ledger, so that a confirmed one is never lost.

A preview says what it was made of. It is confirmed against that: where the rule or the occurrence is another by now,
it is stale. What was confirmed is told to Prefect by calls that bear being made twice; should this process die between
the two, a gateway goes on where it stopped. What cannot be done any more by then is said, in the event log.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from datetime import UTC, datetime, timedelta
from typing import Literal
from uuid import uuid4

from pydantic import AwareDatetime, BaseModel, Field, TypeAdapter
from sqlalchemy import delete, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from ..errors import InputError, PrefectError, UnknownRule
from ..ledger.db import Ledger
from ..ledger.log import NewEvent, append, lock_log, read_head
from ..ledger.tables import CalendarChange, Event, Occurrence
from ..ledger.versions import latest_versions
from ..prefect_api import PrefectApi
from ..prefect_api.ahead import run_due_at
from ..prefect_api.client import Refused
from ..prefect_api.missed import FINAL, create_rescheduled, drop_run
from ..prefect_api.pausing import pause_rule, resume_rule
from ..prefect_api.runs import read_run
from .changes import Change, Drop, Move, Reschedule, Shown, Stale, Switch, show
from .ids import EntryId, UnknownEntry, read_id
from .plans import Plan, plan_of

log = logging.getLogger("proactive.calendar")

VALID = timedelta(minutes=10)
_KEPT = timedelta(days=1)
# Who confirmed a change tells Prefect of it at once; one that was not told after this was left behind.
_LEFT_BEHIND = timedelta(seconds=30)
_LOOK = 5.0  # seconds
_CHANGE: TypeAdapter[Change] = TypeAdapter(Change)


class UnknownChange(InputError):
    """No such change was previewed."""


class Preview(BaseModel):
    """What a change would do."""

    id: str | None = Field(description="To confirm it with; none where it cannot be confirmed here.")
    type: str
    source_ref: str = Field(description="The rule's id.")
    summary: str
    before: list[datetime] = Field(description="The rule's next fires as they are.")
    after: list[datetime] = Field(description="The same with the change.")
    conflicts: list[str] = Field(description="What speaks against it. It can be confirmed all the same.")
    confirmable: bool
    instead: str | None = Field(description="What to do where it cannot be confirmed here.")
    version: int = Field(description="The projection's version that it was made of.")
    expires_at: AwareDatetime | None = Field(description="Until when it can be confirmed.")


class Confirmed(BaseModel):
    """A change that was done."""

    id: str
    type: str
    source_ref: str
    status: Literal["done"] = "done"
    run_id: str | None = Field(description="The run that stands for a moved occurrence, or that was dropped.")
    confirmed_by: str | None
    confirmed_at: datetime | None


async def preview(ledger: Ledger, change: Change, *, by: str, now: datetime | None = None) -> Preview:
    """Show what a change would do, and keep it for VALID. Raises UnknownRule, UnknownEntry, Stale, InputError."""
    now = now or datetime.now(UTC)
    async with ledger.write() as session:
        await session.execute(
            delete(CalendarChange).where(
                col(CalendarChange.expires_at) < now - _KEPT, col(CalendarChange.status) == "previewed"
            )
        )
        plan, about, recorded = await _subject(session, change)
        shown = show(change, plan, about.due if about else None, recorded, now)
        version = (await read_head(session)).revision
        made = None
        if shown.instead is None:
            made = CalendarChange(
                id=str(uuid4()),
                rule_id=plan.rule_id,
                asked=change.model_dump(mode="json"),
                basis=_basis(plan, recorded),
                status="previewed",
                created_at=now,
                created_by=by,
                expires_at=now + VALID,
            )
            session.add(made)
    return _to_preview(change, plan, shown, version, made)


async def confirm(
    ledger: Ledger, api: PrefectApi, change_id: str, *, by: str, now: datetime | None = None
) -> Confirmed:
    """Do what was previewed; done once, however often it is confirmed.

    Raises UnknownChange, Stale where the preview has expired or shows what is no more, PrefectError: then confirm
    again.
    """
    now = now or datetime.now(UTC)
    async with ledger.write() as session:
        await lock_log(session)
        kept = await session.get(CalendarChange, change_id)
        if kept is None:
            raise UnknownChange("no such change was previewed, or it was long ago")
        change = _CHANGE.validate_python(kept.asked)
        if kept.status == "previewed":
            await _decide(session, kept, change, by, now)
    if kept.status == "lapsed":
        raise Stale(await _why_lapsed(ledger, change_id))
    if kept.status != "done":
        kept = await _finish(ledger, api, change_id, change, kept.confirmed_by or by)
    return Confirmed(
        id=kept.id,
        type=change.type,
        source_ref=kept.rule_id,
        run_id=kept.run_id,
        confirmed_by=kept.confirmed_by,
        confirmed_at=kept.confirmed_at,
    )


async def keep_confirmed(api: PrefectApi, ledger: Ledger, stop: asyncio.Event) -> None:
    """Carry out what was confirmed and left behind, until `stop` is set; no failure ends it."""
    while not stop.is_set():
        try:
            await carry_left_behind(ledger, api, datetime.now(UTC) - _LEFT_BEHIND)
        except Exception as error:  # whatever it is, the answer is to try again
            log.warning(
                "calendar.delayed: %s", error.message if isinstance(error, PrefectError) else type(error).__name__
            )
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), _LOOK)


async def carry_left_behind(ledger: Ledger, api: PrefectApi, before: datetime) -> int:
    """Carry out what was confirmed before then and is not done; how many there were. Raises PrefectUnreachable."""
    async with ledger.read() as session:
        query = (
            select(CalendarChange)
            .where(col(CalendarChange.status) == "confirmed", col(CalendarChange.confirmed_at) < before)
            .order_by(col(CalendarChange.confirmed_at))
        )
        found = (await session.scalars(query)).all()
    for kept in found:
        change = _CHANGE.validate_python(kept.asked)
        try:
            await _finish(ledger, api, kept.id, change, kept.confirmed_by or "")
        except (Stale, UnknownRule) as error:
            log.warning("calendar.lapsed type=%s rule=%s: %s", change.type, kept.rule_id, error.message)
        except Refused as refused:  # it is tried again; those that were confirmed after it do not wait for that
            log.warning("calendar.delayed type=%s rule=%s: %s", change.type, kept.rule_id, refused.message)
    return len(found)


async def _finish(ledger: Ledger, api: PrefectApi, change_id: str, change: Change, by: str) -> CalendarChange:
    """Tell Prefect of a confirmed change, and write down that it is done; or that it cannot be, and raise that."""
    try:
        async with ledger.read() as session:
            plan, about, _ = await _subject(session, change)
        try:
            run_id = await _carry_out(api, change, plan, about, by)
        except Refused as refused:
            if refused.status not in FINAL:
                raise
            gone = f"the rule {plan.rule_id!r} is not deployed any more"
            raise Stale(gone if refused.status == 404 else f"Prefect refused it: {refused.detail}") from None
    except (Stale, UnknownRule) as error:
        await _lapse(ledger, change_id, error.message)
        raise
    async with ledger.write() as session:
        kept = await session.get_one(CalendarChange, change_id)
        kept.status, kept.run_id = "done", kept.run_id or run_id
    log.info("calendar.changed type=%s rule=%s", change.type, plan.rule_id)
    return kept


async def _lapse(ledger: Ledger, change_id: str, why: str) -> None:
    """Write down that a confirmed change cannot be done, once."""
    async with ledger.write() as session:
        await lock_log(session)
        kept = await session.get_one(CalendarChange, change_id)
        if kept.status != "confirmed":
            return
        kept.status = "lapsed"
        latest = (await latest_versions(session)).get(kept.rule_id)
        plan = plan_of(latest) if latest is not None else None
        payload = {
            "change_id": kept.id,
            "action": kept.asked["type"],
            "message": why,
            "confirmed_by": kept.confirmed_by,
        }
        event = NewEvent(
            f"change:{kept.id}:lapsed",
            "calendar_change_lapsed",
            plan.kind if plan else "calendar",
            kept.rule_id,
            plan.owner_id if plan else "",
            datetime.now(UTC),
            kept.asked["type"],
            payload,
        )
        await append(session, [event])


async def _why_lapsed(ledger: Ledger, change_id: str) -> str:
    async with ledger.read() as session:
        event = await session.scalar(select(Event).where(col(Event.key) == f"change:{change_id}:lapsed"))
    return str(event.payload["message"]) if event is not None else "it could not be done any more"


async def _decide(session: AsyncSession, kept: CalendarChange, change: Change, by: str, now: datetime) -> None:
    if now > kept.expires_at:
        raise Stale("the preview has expired; allowed: to preview it again")
    plan, about, recorded = await _subject(session, change)
    if _basis(plan, recorded) != kept.basis:
        raise Stale(f"{kept.rule_id!r} has changed since the preview; allowed: to preview it again")
    shown = show(change, plan, about.due if about else None, recorded, now)  # it may have become due meanwhile
    kept.status, kept.confirmed_at, kept.confirmed_by = "confirmed", now, by
    payload = {"change_id": kept.id, "action": change.type, "message": shown.summary, "confirmed_by": by}
    event = NewEvent(
        f"change:{kept.id}",
        "calendar_change_confirmed",
        plan.kind,
        plan.rule_id,
        plan.owner_id,
        now,
        change.type,
        payload,
    )
    await append(session, [event])


async def _carry_out(api: PrefectApi, change: Change, plan: Plan, about: EntryId | None, by: str) -> str | None:
    assert plan.deployment_id is not None  # `_subject` has seen to that
    match change:
        case Switch(type="pause"):
            await pause_rule(api, plan.deployment_id)
        case Switch():
            await resume_rule(api, plan.deployment_id, enabled=plan.rule.enabled)
        case Move() | Drop():
            assert about is not None
            assert about.due is not None
            assert about.key is not None
            run = await run_due_at(api, plan.deployment_id, about.due)
            if run is None:
                raise Stale(f"Prefect has no run of {plan.rule_id!r} for {about.due.isoformat()}")
            reason = f"Moved to {change.target.isoformat()}" if isinstance(change, Move) else "Dropped on the calendar"
            dropped = await drop_run(api, run.id, f"{reason} by {by}.")
            # Dropped before, by a confirmation that did not come to its end, is as good; begun is not.
            state = (await read_run(api, run.id)).state
            if not dropped and (state is None or not state.is_cancelled()):
                raise Stale(f"the run {run.name} has begun meanwhile")
            if not isinstance(change, Move):
                return str(run.id)
            made = await create_rescheduled(
                api, plan.deployment_id, plan.rule_id, run.parameters, change.target, about.key
            )
            return str(made.id)
        case Reschedule():
            raise Stale("a schedule is changed in the rules file")
    return None


async def _subject(session: AsyncSession, change: Change) -> tuple[Plan, EntryId | None, Occurrence | None]:
    """The rule that a change is about, the occurrence that it names, and what is recorded of that."""
    about = None
    if isinstance(change, (Move, Drop)):
        about = read_id(change.event_id)
        if about.due is None:
            raise UnknownEntry(f"{change.event_id[:200]!r} is not the event_id of one scheduled entry")
    rule_id = about.rule_id if about is not None else change.rule  # type: ignore[union-attr]
    version = (await latest_versions(session)).get(rule_id)
    plan = plan_of(version) if version is not None else None
    if plan is None or plan.status == "deleted" or plan.deployment_id is None:
        raise UnknownRule(f"no rule {rule_id!r} is deployed")
    recorded = None
    if about is not None:
        query = select(Occurrence).where(col(Occurrence.rule_id) == rule_id, col(Occurrence.key) == about.key)
        recorded = await session.scalar(query)
    return plan, about, recorded


def _basis(plan: Plan, recorded: Occurrence | None) -> str:
    return f"{plan.version_id} {recorded.revision if recorded is not None else 'none'}"


def _to_preview(change: Change, plan: Plan, shown: Shown, version: int, made: CalendarChange | None) -> Preview:
    return Preview(
        id=made.id if made else None,
        type=change.type,
        source_ref=plan.rule_id,
        summary=shown.summary,
        before=shown.before,
        after=shown.after,
        conflicts=shown.conflicts,
        confirmable=made is not None,
        instead=shown.instead,
        version=version,
        expires_at=made.expires_at if made else None,
    )
