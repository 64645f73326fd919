"""What became of an occurrence, from the states of its runs: pure, and the same in whatever order they are heard.

A run's row is a summary to which each state is joined: it keeps the latest state, the latest end, the latest hold and
the first and latest start, by Prefect's own time stamps (a state's id decides between equal ones). Joining is
commutative, associative and idempotent, so an older or a repeated state changes nothing. The outcome is a function of
the rows of all runs of the occurrence and of its resolution.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import assert_never

from ..rules.state_names import MISSED, QUIET, SKIPPED, TIMED_OUT
from .tables import Outcome, Resolution, ResolutionAction, Run

ENDED = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")
RESCHEDULED = "rescheduled"
_REASON_LENGTH = 1000
_AT_WORK = ("Running", "Retrying", "Cancelling", "AwaitingRetry", "Paused", "Suspended")


@dataclass(frozen=True)
class RunRef:
    """Which run, of which occurrence of which rule. `cause` is schedule, manual or webhook; `due` is aware."""

    run_id: str
    name: str
    deployment_id: str | None
    rule_id: str
    kind: str
    owner_id: str
    due: datetime
    cause: str
    created: datetime
    delivery_id: str | None = None
    origin: str | None = None
    """The key of the occurrence that it was rescheduled from."""
    session_id: str | None = None

    @property
    def key(self) -> str:
        """The occurrence's key, unique together with the rule."""
        return occurrence_key(self.due, self.delivery_id, self.origin)


@dataclass(frozen=True)
class StateFact:
    """A state that a run came into. `before` is the name of the one it left; None for its first, or where unknown."""

    run_id: str
    state_id: str
    type: str
    name: str
    message: str
    at: datetime
    before: str | None

    @property
    def holds(self) -> bool:
        """The run waits for somebody to decide."""
        return self.type == "PAUSED" and self.name == MISSED

    @property
    def abandons(self) -> bool:
        """The run's process died after the action could have begun: what it did is not known."""
        return self.type == "CRASHED" and self.before in _AT_WORK

    @property
    def resolves(self) -> ResolutionAction | None:
        """What somebody decided by bringing a held run to this state."""
        if self.before != MISSED or self.holds or self.name == SKIPPED:
            return None
        return "delete_missed" if self.type in ENDED else "approve_backfill_run"


@dataclass(frozen=True)
class Verdict:
    """What became of an occurrence so far. `run_id` is the run that says so."""

    outcome: Outcome
    reason: str = ""
    running: bool = False
    run_id: str | None = None
    started_at: datetime | None = None
    ended_at: datetime | None = None


def occurrence_key(due: datetime, delivery_id: str | None = None, origin: str | None = None) -> str:
    """An occurrence's key: its instant in UTC, a webhook's delivery, or the key of what it was rescheduled from."""
    if origin is not None:
        return f"{RESCHEDULED}:{origin}"
    if delivery_id is not None:
        return f"delivery:{delivery_id}"
    return f"due:{due.astimezone(UTC).isoformat(timespec='microseconds')}"


def join(run: Run, fact: StateFact) -> None:
    """Join a state to the run's summary."""
    mark = (fact.at, fact.state_id)
    if run.last_at is None or mark > (run.last_at, run.last_state_id or ""):
        run.last_at, run.last_state_id, run.last_type, run.last_name = fact.at, fact.state_id, fact.type, fact.name
    if fact.type in ENDED and (run.ended_at is None or mark > (run.ended_at, run.ended_state_id or "")):
        run.ended_at, run.ended_state_id, run.ended_type, run.ended_name = fact.at, fact.state_id, fact.type, fact.name
        run.ended_message = fact.message[:_REASON_LENGTH]
    if fact.holds and (run.held_at is None or fact.at > run.held_at):
        run.held_at, run.held_message = fact.at, fact.message[:_REASON_LENGTH]
    if fact.type == "RUNNING":
        run.first_running_at = min(fact.at, run.first_running_at or fact.at)
        run.last_running_at = max(fact.at, run.last_running_at or fact.at)


def join_deletion(run: Run, at: datetime) -> None:
    """Prefect has the run no more, as was noticed at `at`."""
    run.deleted_at = min(at, run.deleted_at or at)


def action_began(run: Run) -> datetime | None:
    """When the action could begin. A start before a hold was only the gate's, which then held the run."""
    if run.held_at is None:
        return run.first_running_at
    return run.last_running_at if run.last_running_at and run.last_running_at > run.held_at else None


def is_over(run: Run) -> bool:
    """Whether the run has ended, and nobody runs it once more."""
    again = run.last_type in ("RUNNING", "PENDING", "CANCELLING") and run.deleted_at is None
    return run.ended_at is not None and not again


def judge(runs: Iterable[Run], resolution: Resolution | None = None, skipped_as: str | None = None) -> Verdict:
    """What became of the occurrence that these runs, which may be none, and this resolution belong to.

    `skipped_as` is "code: text" where the gate skipped it before there was a run.
    """
    verdicts = [_of_run(run) for run in runs]
    # Of several runs for one due moment, as a redeploy by other means makes them, one counts: the one that ran.
    verdict = max(verdicts, key=lambda one: (_weight(one), one.run_id or ""), default=_without_run(skipped_as))
    if resolution is None or verdict.running or verdict.outcome not in ("expected", "missed", "deleted"):
        return verdict
    action: ResolutionAction = resolution.action  # type: ignore[assignment]  # kept as text in the table
    match action:
        case "reschedule":
            to = f"to {resolution.target.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC" if resolution.target else ""
            return replace(verdict, outcome="rescheduled", reason=to)
        case "delete_missed":
            return replace(verdict, outcome="deleted")
        case "approve_backfill_run":
            return verdict if verdict.outcome == "deleted" else replace(verdict, outcome="approved")
        case _:
            assert_never(action)


def _without_run(skipped_as: str | None) -> Verdict:
    return Verdict("expected") if skipped_as is None else Verdict("skipped", skipped_as)


def _of_run(run: Run) -> Verdict:
    began = action_began(run)
    if run.ended_at is not None:
        outcome, reason = _end(run, began)
        started = began if outcome not in ("skipped", "deleted") else None
        return Verdict(outcome, reason, not is_over(run), run.run_id, started, run.ended_at)
    if run.deleted_at is not None:
        return _deleted(run, began)
    if run.held_at is not None and began is None:
        outcome = "missed" if run.last_at == run.held_at else "approved"
        return Verdict(outcome, run.held_message or "", run_id=run.run_id)
    return Verdict(
        "approved" if run.held_at is not None else "expected",
        running=began is not None and run.last_type not in ("SCHEDULED", "PAUSED"),
        run_id=run.run_id,
        started_at=began,
    )


def _end(run: Run, began: datetime | None) -> tuple[Outcome, str]:
    message = run.ended_message or ""
    match run.ended_type, run.ended_name:
        case "COMPLETED", name:
            return ("quiet" if name == QUIET else "completed"), message
        case "FAILED", name:
            return ("timed_out" if name == TIMED_OUT else "failed"), message
        case "CRASHED", _:  # what had not begun has done nothing: that is known
            return ("unknown" if began is not None else "failed"), message
        case _, name if name == SKIPPED:
            return "skipped", message
        case _ if began is not None:
            return "cancelled", message
        case _ if run.held_at is not None:
            return "deleted", message
        case _:
            return "skipped", f"cancelled: {message or 'before it began'}"


def _deleted(run: Run, began: datetime | None) -> Verdict:
    at = run.deleted_at
    if began is not None:
        return Verdict("unknown", "its run was deleted in Prefect before it had ended", False, run.run_id, began, at)
    if run.held_at is not None:
        return Verdict("deleted", "its run was deleted in Prefect", run_id=run.run_id, ended_at=at)
    return Verdict("skipped", "deleted: its run was deleted in Prefect before it began", run_id=run.run_id, ended_at=at)


def _weight(verdict: Verdict) -> int:
    match verdict.outcome:
        case "skipped":
            return 0 if verdict.reason.startswith("duplicate:") else 1
        case "deleted" | "rescheduled":
            return 2
        case "expected":
            return 5 if verdict.running else 3
        case "missed":
            return 4
        case "approved":
            return 5
        case "completed" | "quiet" | "failed" | "timed_out" | "cancelled" | "unknown":
            return 6
        case _:
            assert_never(verdict.outcome)
