"""What somebody wants to change on the calendar, shown before it is done: pure.

One occurrence that is yet to come can be moved or dropped; a rule can be paused and resumed. When a rule is due by
itself is declared in the rules file and changed there: such a change can be looked at here, and not confirmed.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Annotated, Literal, assert_never

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from ..errors import InputError
from ..firing.foreseen import foreseen_skip, next_runs
from ..ledger.tables import Occurrence
from ..rules.models import RULE_MODELS
from ..rules.phrases import when
from .plans import Plan

FIRES = 5
_DAY = timedelta(days=1)
_FARTHEST = timedelta(days=3660)
_TICK = timedelta(microseconds=1)

EventId = Annotated[str, Field(min_length=1, max_length=2000, description="The event_id of one scheduled entry.")]
RuleId = Annotated[str, Field(min_length=1, max_length=200, description="The rule's id.")]


class _Change(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Move(_Change):
    """Let one occurrence run at another time."""

    type: Literal["move"]
    event_id: EventId
    target: AwareDatetime


class Drop(_Change):
    """Let one occurrence not run."""

    type: Literal["skip"]
    event_id: EventId


class Switch(_Change):
    """Pause a rule, or resume it."""

    type: Literal["pause", "resume"]
    rule: RuleId


class Reschedule(_Change):
    """Let a rule be due at other times: to look at only."""

    type: Literal["schedule"]
    rule: RuleId
    cron: str | None = Field(default=None, max_length=500)
    every: str | None = Field(default=None, max_length=50, examples=["15m"])
    timezone: str | None = Field(default=None, max_length=100)


Change = Annotated[Move | Drop | Switch | Reschedule, Field(discriminator="type")]


class Stale(InputError):
    """What was asked for does not go with what is there now."""


@dataclass(frozen=True)
class Shown:
    """What a change would do. `instead`: what to do where it cannot be confirmed here."""

    summary: str
    before: list[datetime]
    after: list[datetime]
    conflicts: list[str]
    instead: str | None = None


def show(change: Change, plan: Plan, due: datetime | None, recorded: Occurrence | None, now: datetime) -> Shown:
    """What the change would do; `due` and `recorded` are of the occurrence that it names.

    Raises Stale where the occurrence is not to come any more, InputError for what cannot be.
    """
    match change:
        case Move() | Drop():
            assert due is not None  # the change names an occurrence
            _check_to_come(change.event_id, plan, due, recorded, now)
            return _of_occurrence(change, plan, due, now)
        case Switch():
            return _of_switch(change.type, plan, now)
        case Reschedule():
            return _of_schedule(change, plan, now)
        case _:
            assert_never(change)


def fires(plan: Plan, after: datetime) -> list[datetime]:
    """The next fires of a rule that its conditions let run, at most FIRES; none while it is not active."""
    return next_runs(plan.rule, after, FIRES) if plan.status == "active" else []


def _check_to_come(event_id: str, plan: Plan, due: datetime, recorded: Occurrence | None, now: datetime) -> None:
    if recorded is not None and (recorded.outcome != "expected" or recorded.running):
        raise Stale(f"{event_id} is {'running' if recorded.running else recorded.outcome}; allowed: what is scheduled")
    if due <= now:
        raise Stale(f"{event_id} is due already; allowed: what is yet to come")
    if not plan.due(due, due + _TICK, 1).count:
        raise Stale(f"{plan.rule_id!r} is not due at {due.isoformat()}, or not active; allowed: what is scheduled")


def _of_occurrence(change: Move | Drop, plan: Plan, due: datetime, now: datetime) -> Shown:
    before = fires(plan, now)
    if due not in before:
        before = fires(plan, due - _TICK)
    rest = [at for at in before if at != due]
    if isinstance(change, Drop):
        return Shown(f"{plan.rule_id} does not run at {_utc(due)}", before, rest, [])
    target = change.target.astimezone(UTC)
    if not now < target <= now + _FARTHEST:
        raise InputError(f"{target.isoformat()} is not a time to come; allowed: from now on, up to ten years")
    if target == due:
        raise InputError("that is when it is due; allowed: another time")
    conflicts = []
    if plan.due(target, target + _TICK, 1).count:
        conflicts.append(f"{plan.rule_id} is due at {_utc(target)} by itself")
    following = fires(plan, due)
    if following and target > following[0]:
        conflicts.append(f"it comes after the next one, which is due {_utc(following[0])}")
    if (skip := foreseen_skip(plan.rule, target)) is not None:
        # A moved run is a person's word, which the gate puts above every rule about when.
        conflicts.append(f"{skip}; it runs all the same")
    summary = f"{plan.rule_id} runs at {_utc(target)} instead of {_utc(due)}"
    return Shown(summary, before, sorted([*rest, target]), conflicts)


def _of_switch(what: Literal["pause", "resume"], plan: Plan, now: datetime) -> Shown:
    active = replace(plan, status="active")
    if what == "pause":
        lost = active.due(now, now + _DAY, 0).count if plan.status == "active" else 0
        conflicts = [] if plan.status == "active" else [f"it is {plan.status} already"]
        summary = f"{plan.rule_id} is paused: {lost} runs less in the next 24 hours, until it is resumed"
        return Shown(summary, fires(plan, now), [], conflicts)
    match plan.status:
        case "paused":
            return Shown(f"{plan.rule_id} is resumed", [], fires(active, now), [])
        case "active":
            return Shown(f"{plan.rule_id} stays active", fires(plan, now), fires(plan, now), ["it is active already"])
        case _:
            raise Stale(f"{plan.rule_id!r} is {plan.status}; allowed: what is paused")


def _of_schedule(change: Reschedule, plan: Plan, now: datetime) -> Shown:
    if plan.kind == "webhook":
        raise InputError(f"{plan.rule_id!r} is a webhook: it is due when it is called")
    if (change.cron is None) == (change.every is None):
        raise InputError("when should it be due? allowed: exactly one of cron and every")
    if change.every is not None and plan.kind == "cron":
        raise InputError(f"{plan.rule_id!r} is a cron rule; allowed: cron")
    fields = plan.rule.model_dump(mode="json", exclude_none=True)
    if plan.kind == "skill":
        timing = {"type": "cron", "cron": change.cron} if change.cron else {"type": "interval", "every": change.every}
        fields["schedule"] = timing
    else:
        for key in ("cron", "every"):
            fields.pop(key, None)
        fields |= {"cron": change.cron} if change.cron is not None else {"every": change.every}
    if change.timezone is not None:
        fields["timezone"] = change.timezone
    try:
        rule = RULE_MODELS[plan.kind].model_validate(fields)
    except ValidationError as problem:
        raise InputError("; ".join(error["msg"] for error in problem.errors(include_url=False))) from None
    changed = replace(plan, rule=rule, timing=rule.timing)
    return Shown(
        f"{plan.rule_id} is due {when(rule)} instead of {when(plan.rule)}",
        fires(plan, now),
        fires(changed, now),
        [],
        instead=f"change the rule {plan.rule_id!r} in the rules file, then `proactive plan` and `proactive apply`",
    )


def _utc(at: datetime) -> str:
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"
