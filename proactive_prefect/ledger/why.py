"""Why something ran, did not run, or was never due: the one thing that became of a moment, and the facts behind it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, assert_never

from pydantic import BaseModel, Field, ValidationError
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from ..errors import InputError, PrefectError, UnknownRule
from ..prefect_api import PrefectApi
from ..prefect_api.changes import state_history
from ..prefect_api.links import run_url
from ..rules.conditions import unmet
from ..rules.models import from_snapshot
from ..rules.timing import Timing, due_between, next_due
from .cursors import BEGAN, read_cursor
from .log import read_events_of_run
from .resolutions import resolution_of
from .tables import Event, LeftOut, Occurrence, Outcome, Run
from .versions import version_at, versions_of

Absence = Literal["not_due", "before_created", "deleted", "paused", "disabled", "upcoming", "no_call", "unrecorded"]
# How far back a former due time is looked for, in steps, so that rules due each second cost no more than others.
_BACK = (timedelta(minutes=2), timedelta(hours=2), timedelta(days=2), timedelta(days=40), timedelta(days=1500))


class Step(BaseModel):
    """One step in the life of an occurrence, as the event log has it."""

    at: datetime
    event_type: str
    status: str
    message: str | None = None


class StateStep(BaseModel):
    """One state of the run, as Prefect has it."""

    at: datetime
    type: str
    name: str
    message: str | None = None


class ResolvedBy(BaseModel):
    """Who decided about a missed occurrence."""

    action: str
    by: str = Field(description='A principal; "prefect" for whoever did it in Prefect\'s own UI, which keeps no names.')
    via: str
    at: datetime
    target: datetime | None = Field(description="Of reschedule: to when.")


class WhyRun(BaseModel):
    """The flow run that says what became of the occurrence."""

    run_id: str
    name: str
    url: str | None = Field(default=None, description="The run in Prefect's UI.")
    states: list[StateStep] = Field(default_factory=list, description="Empty while Prefect is away, or has it no more.")


class Why(BaseModel):
    """The answer. `verdict` is the occurrence's outcome, or why there is no occurrence at that time."""

    rule_id: str
    at: datetime = Field(description="The time that was asked about.")
    verdict: Outcome | Absence
    text: str = Field(description="The answer in a sentence.")
    due: datetime | None = Field(default=None, description="The occurrence's own time, where there is one.")
    cause: str | None = Field(default=None, description="schedule, manual, or webhook.")
    reason: str | None = Field(default=None, description="For skipped: `code: text`.")
    running: bool = False
    started_at: datetime | None = None
    ended_at: datetime | None = None
    run: WhyRun | None = None
    other_runs: list[str] = Field(default_factory=list, description="More runs for the same time: duplicates.")
    resolution: ResolvedBy | None = None
    steps: list[Step] = Field(default_factory=list, description="As far back as the event log is kept.")
    rescheduled_from: datetime | None = None
    also: list[datetime] = Field(default_factory=list, description="Other occurrences within the time asked about.")
    previous_due: datetime | None = None
    next_due: datetime | None = None


async def why(session: AsyncSession, rule_id: str, at: datetime, now: datetime) -> Why:
    """What became of the rule's occurrence at `at`: that minute if it names no seconds, else that second.

    Raises UnknownRule where neither a rule nor an occurrence of that id was ever seen, InputError for a time out of
    all calendars.
    """
    if not 1970 < at.year < 3000:
        raise InputError(f"the year {at.year} is out of all calendars; allowed: an instant from 1971 to 2999")
    length = timedelta(seconds=1) if at.second or at.microsecond else timedelta(minutes=1)
    query = (
        select(Occurrence)
        .where(col(Occurrence.rule_id) == rule_id, col(Occurrence.due) >= at, col(Occurrence.due) < at + length)
        .order_by(col(Occurrence.due))
        .limit(100)
    )
    found = (await session.scalars(query)).all()
    if not found:
        return await _absent(session, rule_id, at, length, now)
    # What was due by itself comes before what somebody started in the same minute.
    first = next((one for one in found if one.cause == "schedule"), found[0])
    return await _present(session, first, at, [one.due for one in found if one is not first])


async def with_states(api: PrefectApi, answer: Why) -> Why:
    """The answer with the run's states and address, as far as Prefect has them and answers."""
    if answer.run is None:
        return answer
    try:
        history = await state_history(api, answer.run.run_id)
    except PrefectError:
        history = []
    states = [StateStep(at=one.at, type=one.type, name=one.name, message=one.message or None) for one in history]
    run = answer.run.model_copy(update={"url": run_url(answer.run.run_id), "states": states})
    return answer.model_copy(update={"run": run})


async def _present(session: AsyncSession, occurrence: Occurrence, at: datetime, also: list[datetime]) -> Why:
    assert occurrence.id is not None  # it comes from the database
    runs = (await session.scalars(select(Run).where(col(Run.occurrence_id) == occurrence.id))).all()
    run = next((one for one in runs if one.run_id == occurrence.run_id), None)
    resolution = await resolution_of(session, occurrence.id)
    origin = await session.get(Occurrence, occurrence.origin_id) if occurrence.origin_id else None
    events = await read_events_of_run(session, occurrence.rule_id, [one.run_id for one in runs])
    return Why(
        rule_id=occurrence.rule_id,
        at=at,
        verdict=_outcome(occurrence),
        text=_sentence(occurrence),
        due=occurrence.due,
        cause=occurrence.cause,
        reason=occurrence.reason or None,
        running=occurrence.running,
        started_at=occurrence.started_at,
        ended_at=occurrence.ended_at,
        run=WhyRun(run_id=run.run_id, name=run.name) if run else None,
        other_runs=[one.run_id for one in runs if one is not run],
        resolution=ResolvedBy(
            action=resolution.action,
            by=resolution.resolved_by,
            via=resolution.via,
            at=resolution.at,
            target=resolution.target,
        )
        if resolution
        else None,
        steps=[
            Step(
                at=one.occurred_at_utc, event_type=one.event_type, status=one.status, message=one.payload.get("message")
            )
            for one in sorted(events, key=lambda one: (one.occurred_at_utc, one.seq))
        ],
        rescheduled_from=origin.due if origin else None,
        also=also,
    )


async def _absent(session: AsyncSession, rule_id: str, at: datetime, length: timedelta, now: datetime) -> Why:
    versions = await versions_of(session, rule_id)
    if not versions:
        known = await session.scalar(select(col(Occurrence.id)).where(col(Occurrence.rule_id) == rule_id).limit(1))
        if known is None:
            raise UnknownRule(f"no rule {rule_id!r} was ever seen", hint="`proactive list` shows the rules.")
        return _no(rule_id, at, "unrecorded", "nothing is known of that time, nor of what the rule was then")
    version = version_at(versions, at) or version_at(versions, at + length - timedelta(microseconds=1))
    if version is None:
        return _no(rule_id, at, "before_created", f"the rule was created {_utc(versions[0].since)}")
    match version.status:
        case "deleted":
            return _no(rule_id, at, "deleted", f"the rule was deleted {_utc(version.since)}")
        case "paused":
            return _no(rule_id, at, "paused", f"the rule was paused in Prefect, since {_utc(version.since)}")
        case "disabled":
            return _no(rule_id, at, "disabled", f"the rule was switched off, since {_utc(version.since)}")
        case "unseen":
            return _no(rule_id, at, "unrecorded", "the rule was changed then while nobody looked: it is not known")
    try:
        rule = from_snapshot(version.snapshot)
    except ValidationError:
        text = f"no run at that time is known; the rule as it was since {_utc(version.since)} cannot be read any more"
        return _no(rule_id, at, "unrecorded", text)
    timing = rule.timing
    if timing is None:
        return _no(rule_id, at, "no_call", "no accepted call of the webhook at that time is known")
    end = at + length - timedelta(microseconds=1)  # its last instant: what is due right after it is the next
    around = {"previous_due": _previous(timing, at), "next_due": next(iter(next_due(timing, end, 1)), None)}
    due = next(iter(due_between(timing, at, at + length, 1)), None)
    if due is None:
        return _no(rule_id, at, "not_due", "the rule was not due then", **around)
    if due > now:
        skip = unmet(rule, due)
        text = f"it is due {_utc(due)}" + (f", and will be skipped: {skip.code}: {skip.text}" if skip else "")
        return _no(rule_id, at, "upcoming", text, due=due, **around)
    began = await read_cursor(session, BEGAN)
    if began is None or due < began:
        since = f"begins {_utc(began)}" if began else "has not begun"
        return _no(rule_id, at, "unrecorded", f"it was due, but the account {since}", **around)
    left = await session.scalar(
        select(LeftOut).where(col(LeftOut.rule_id) == rule_id, col(LeftOut.since) <= due, col(LeftOut.until) > due)
    )
    if left is not None:
        text = f"it was due {_utc(due)}, was missed, and was left out with {left.count - 1} others: {left.reason}"
        return _no(rule_id, at, "unrecorded", text, **around)
    return _no(rule_id, at, "unrecorded", f"it was due {_utc(due)}, and Prefect has no run for it", **around)


def _no(rule_id: str, at: datetime, verdict: Absence, text: str, **more: Any) -> Why:
    return Why(rule_id=rule_id, at=at, verdict=verdict, text=text, **more)


def _sentence(occurrence: Occurrence) -> str:
    outcome = _outcome(occurrence)
    reason = f": {occurrence.reason}" if occurrence.reason else ""
    match outcome:
        case "expected":
            if occurrence.running:
                return f"it runs, since {_utc(occurrence.started_at)}"
            return "it is due, and its run has not started yet"
        case "completed" | "quiet" | "failed" | "timed_out" | "cancelled" | "unknown":
            ran = (
                f" (ran {_utc(occurrence.started_at)} to {_utc(occurrence.ended_at)})" if occurrence.started_at else ""
            )
            became = "how far it came is unknown" if outcome == "unknown" else outcome.replace("_", " ")
            return f"{became}{ran}{reason}"
        case "skipped" | "rescheduled" | "deleted":
            return f"{outcome}{reason}"
        case "missed":
            return f"missed, and waits for somebody to decide{reason}"
        case "approved":
            return "was missed, and is approved: it runs as soon as a worker takes it"
        case _:
            assert_never(outcome)


def _message(event: Event) -> str | None:
    found = event.payload.get("message")
    return found if isinstance(found, str) else None


def _outcome(occurrence: Occurrence) -> Outcome:
    outcome: Outcome = occurrence.outcome  # type: ignore[assignment]  # kept as text in the table
    return outcome


def _previous(timing: Timing, at: datetime) -> datetime | None:
    for span in _BACK:
        found: Sequence[datetime] = due_between(timing, at - span, at, 10_000)
        if found:
            return found[-1]
    return None


def _utc(at: datetime | None) -> str:
    return "at an unknown time" if at is None else f"{at.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"
