"""The gate: the one decision before an action, from a rule, an occurrence and facts. Pure: no clock, no I/O.

It is asked in three places: in our worker before a run goes Pending, as the first step inside the flow, and before a
webhook's run is created. It judges history, not the moment of asking: each question is about the occurrence's due time,
its start, or what was at work between them, as the server recorded it. So the answer hardly depends on when or where
it is asked, and of runs that start together each can tell by itself which one comes first: the one whose Running state
is oldest.

What applies depends on the cause:

- schedule: everything.
- webhook: everything but grace and duplicates; a call is never "missed", and has a key of its own.
- manual (run now in Prefect's UI, the CLI or the SDK) and a missed run that somebody resumed: a person's word outweighs
  every rule about *when* (conditions, start_at and end_at, cooldown, max_runs, grace). It does not outweigh the off
  switch, nor `on_overlap`, which protects the action from itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, assert_never
from uuid import UUID
from zoneinfo import ZoneInfo

from ..rules.conditions import Cause, ConditionCode, unmet
from ..rules.durations import format_duration
from ..rules.models import RuleBase

SkipCode = (
    ConditionCode
    | Literal[
        "overlap", "duplicate", "cooldown", "disabled", "quota", "max_runs", "expired", "capability_denied", "stale"
    ]
)
Stage = Literal["waiting", "running", "held", "ran", "settled"]

# How soon, at most, Prefect offers a waiting run its free slot (it waits 30 s between tries, and polls every 10 s).
SLOT_WAIT = timedelta(seconds=60)


@dataclass(frozen=True)
class Occurrence:
    """One due moment of one rule, and the run that stands for it.

    `due` is when it was expected (aware); `started` is the server's instant of its Running state, None before it.
    """

    rule_id: str
    due: datetime
    run_id: UUID
    cause: Cause
    started: datetime | None = None
    payload: Any = None


@dataclass(frozen=True)
class RunFact:
    """Another run of the same rule, as the server tells of it.

    `stage`: waiting (scheduled or pending), running (its process may be at work), held (Missed, or suspended),
    ran (ended after its action had begun), settled (ended without: skipped, or cancelled before its start).
    `began` and `ended` are None until they happen; a run that was resumed began with its last start.
    """

    run_id: UUID
    due: datetime
    scheduled: bool
    stage: Stage
    began: datetime | None = None
    ended: datetime | None = None


@dataclass(frozen=True)
class Facts:
    """What the gate knows besides the rule: gathered by `facts.gather`, only as far as the rule needs it.

    `now` is the asker's clock; `runs` holds other runs of the rule, in any order; `ran_before` counts those that ran
    before this one (None: not needed); `session_active` answers for the rule's session hook (None: not asked here);
    `approved` is whether somebody resumed this run after it was held; `later_due` holds the due times of later
    occurrences that are due by now.
    """

    now: datetime
    runs: Sequence[RunFact] = ()
    ran_before: int | None = None
    session_active: bool | None = None
    approved: bool = False
    later_due: Sequence[datetime] = ()


@dataclass(frozen=True)
class Run:
    """The action runs, once the runs in `cancel` (on_overlap = "cancel_running") have been cancelled and have ended."""

    cancel: tuple[UUID, ...] = ()


@dataclass(frozen=True)
class Skip:
    """A deliberate non-run. As text it is "code: reason"."""

    code: SkipCode
    text: str

    def __str__(self) -> str:
        return f"{self.code}: {self.text}"


@dataclass(frozen=True)
class Hold:
    """Missed: waits for somebody to resume or cancel it. `text` says by how much, for people."""

    text: str

    def __str__(self) -> str:
        return f"missed: {self.text}"


Decision = Run | Skip | Hold


def decide(rule: RuleBase, occurrence: Occurrence, facts: Facts) -> Decision:
    """The one decision for `occurrence`. Every answer has exactly one reason: the first that applies, in this order."""
    if not rule.enabled:
        return Skip("disabled", "the rule or its project is switched off (enabled = false)")
    start = occurrence.started or facts.now
    others = _in_order(run for run in facts.runs if run.run_id != occurrence.run_id)
    by_person = occurrence.cause == "manual" or facts.approved
    if not by_person:
        refused = (
            _expired(rule, occurrence.due)
            or _duplicate(occurrence, others)
            or _condition(rule, occurrence, facts)
            or _max_runs(rule, facts)
            or _cooldown(rule, others, occurrence.due)
        )
        if refused:
            return refused
    is_late = occurrence.cause == "schedule" and start > occurrence.due + rule.grace
    if not facts.approved:
        if is_late and (busy := _overlap(rule, occurrence, others, occurrence.due, occurrence.due)):
            return busy
        if is_late and (late := _late(rule, occurrence, others, start, facts)):
            return late
        if not by_person and (cooling := _cooldown(rule, others, start)):
            return cooling
    # What runs late by decision is not to blame for what ran while nobody looked; else all the time since due counts.
    since = start if is_late else occurrence.due
    if busy := _overlap(rule, occurrence, others, since, start):
        # What catches up waits for what is at work, which may be catching up too, rather than give way to it.
        catches_up = is_late and rule.on_missed in ("run", "latest") and rule.on_overlap != "queue_one"
        return Hold(f"it runs in its turn ({rule.on_missed}); {busy.text}") if catches_up else busy
    if rule.on_overlap == "cancel_running":
        return Run(cancel=tuple(run.run_id for run in _at_work(occurrence, others, start, start)))
    return Run()


def _expired(rule: RuleBase, due: datetime) -> Skip | None:
    if rule.start_at is not None and due < rule.start_at:
        return Skip("expired", f"due before start_at, {_wall(rule.start_at, rule)}")
    if rule.end_at is not None and due >= rule.end_at:
        return Skip("expired", f"end_at is {_wall(rule.end_at, rule)}")
    return None


def _duplicate(occurrence: Occurrence, others: Sequence[RunFact]) -> Skip | None:
    """A second run for the same due moment, as a redeploy by other means makes one: the first to begin is the one."""
    if occurrence.cause != "schedule":
        return None
    for run in others:
        twin = run.scheduled and run.due == occurrence.due and run.stage != "settled"
        if twin and (run.stage in ("held", "ran") or _began_first(run, occurrence)):
            return Skip("duplicate", f"run {run.run_id} is for the same time, {_utc(occurrence.due)}")
    return None


def _condition(rule: RuleBase, occurrence: Occurrence, facts: Facts) -> Skip | None:
    failed = unmet(
        rule,
        occurrence.due,
        cause=occurrence.cause,
        session_active=facts.session_active,
        payload=occurrence.payload,
    )
    return Skip(failed.code, failed.text) if failed else None


def _max_runs(rule: RuleBase, facts: Facts) -> Skip | None:
    if rule.max_runs is not None and facts.ran_before is not None and facts.ran_before >= rule.max_runs:
        return Skip("max_runs", f"the rule has had its {rule.max_runs} run{'' if rule.max_runs == 1 else 's'}")
    return None


def _cooldown(rule: RuleBase, others: Sequence[RunFact], at: datetime) -> Skip | None:
    if rule.cooldown is None:
        return None
    ended = [run.ended for run in others if run.stage == "ran" and run.ended is not None and run.ended <= at]
    if ended and at < (until := max(ended) + rule.cooldown):
        return Skip("cooldown", f"the last run ended {_utc(max(ended))}; the next may start {_utc(until)}")
    return None


def _overlap(
    rule: RuleBase, occurrence: Occurrence, others: Sequence[RunFact], since: datetime, until: datetime
) -> Skip | None:
    """Whether an earlier run that was at work between `since` and `until` stands against this one."""
    busy = _at_work(occurrence, others, since, until)
    if not busy:
        return None
    match rule.on_overlap:
        case "allow" | "queue_all":  # queue_all: Prefect's own queue lets one run in at a time
            return None
        case "skip":
            return Skip("overlap", f"run {busy[0].run_id} of this rule was at work {_span(busy[0])}")
        case "cancel_running":
            newer = [run for run in busy if run.due > occurrence.due]
            return Skip("overlap", f"run {newer[0].run_id}, due later, was at work already") if newer else None
        case "queue_one":
            queued = _queued(occurrence, others, since)
            return Skip("overlap", f"run {queued.run_id} of this rule was already waiting") if queued else None
        case _:
            assert_never(rule.on_overlap)


def _late(
    rule: RuleBase, occurrence: Occurrence, others: Sequence[RunFact], start: datetime, facts: Facts
) -> Skip | Hold | None:
    """What becomes of an occurrence past its grace. Waiting for earlier runs of its own rule is not lateness."""
    latest = occurrence.due + rule.grace
    if rule.on_overlap in ("queue_one", "queue_all"):
        turns = sorted((run.began, run.ended) for run in others if run.began and run.ended and run.stage == "ran")
        for began, ended in turns:
            if began <= latest:
                latest = max(latest, ended + rule.grace + SLOT_WAIT)
        if any(run.stage == "running" and run.began and run.began <= latest for run in others):
            return None  # its turn has not come
    if start <= latest:
        return None
    by = format_duration(timedelta(seconds=int((start - occurrence.due).total_seconds())))
    text = f"due {_wall(occurrence.due, rule)}, found {by} later, past its grace of {format_duration(rule.grace)}"
    if rule.stale_after is not None and start > occurrence.due + rule.stale_after:
        return Skip("stale", f"{text}; not worth running after {format_duration(rule.stale_after)}")
    match rule.on_missed:
        case "ask":
            return Hold(text)
        case "run":
            return None
        case "skip":
            return Skip("stale", text)
        case "latest":
            later = [due for due in facts.later_due if due > occurrence.due and unmet(rule, due) is None]
            return Skip("stale", f"{text}; the one due {_wall(max(later), rule)} runs instead") if later else None
        case _:
            assert_never(rule.on_missed)


def _at_work(occurrence: Occurrence, others: Sequence[RunFact], since: datetime, until: datetime) -> list[RunFact]:
    """The runs at work between `since` and `until` that had begun before this occurrence, the first to begin first."""
    busy = [run for run in others if _works(run, since, until) and _began_first(run, occurrence)]
    return sorted(busy, key=lambda run: (run.began, str(run.run_id)))


def _queued(occurrence: Occurrence, others: Sequence[RunFact], at: datetime) -> RunFact | None:
    """The run that held the one place in the queue at `at`, if another did.

    Runs that have not begun may come here in any order, so the queue is replayed by due time: a run that found the
    rule busy and the place taken will be skipped itself, and takes no place.
    """
    kept: list[RunFact] = []
    mine = (occurrence.due, str(occurrence.run_id))
    for run in others:
        if run.stage in ("held", "settled") or (run.due, str(run.run_id)) >= mine:
            continue
        place = _waiting_at(kept, run.due)
        busy = any(_works(other, run.due, run.due) for other in others if other.run_id != run.run_id)
        if run.stage == "ran" or not (busy and place):
            kept.append(run)
    return _waiting_at(kept, at)


def _waiting_at(runs: Sequence[RunFact], at: datetime) -> RunFact | None:
    return next((run for run in runs if run.due <= at and (run.began is None or run.began > at)), None)


def _works(run: RunFact, since: datetime, until: datetime) -> bool:
    return (
        run.stage in ("running", "ran")
        and run.began is not None
        and run.began <= until
        and (run.ended is None or since < run.ended)
    )


def _in_order(runs: Iterable[RunFact]) -> list[RunFact]:
    return sorted(runs, key=lambda run: (run.due, str(run.run_id)))


def _began_first(run: RunFact, occurrence: Occurrence) -> bool:
    if run.began is None:
        return False
    if occurrence.started is None:
        return True
    return (run.began, str(run.run_id)) < (occurrence.started, str(occurrence.run_id))


def _span(run: RunFact) -> str:
    assert run.began is not None  # only runs that have begun are at work
    return f"since {_utc(run.began)}" if run.ended is None else f"from {_utc(run.began)} to {_utc(run.ended)}"


def _utc(at: datetime) -> str:
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


def _wall(at: datetime, rule: RuleBase) -> str:
    return f"{at.astimezone(ZoneInfo(rule.timezone)):%Y-%m-%d %H:%M} {rule.timezone}"
