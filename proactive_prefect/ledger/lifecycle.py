"""The events of a run's life, by the names of the event log: pure."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from ..rules.state_names import QUIET, SKIPPED, TIMED_OUT
from .log import NewEvent
from .outcomes import RunRef, StateFact
from .tables import Outcome

_MESSAGE_LENGTH = 1000


def event_type(kind: str, what: str) -> str:
    """A heartbeat's events are `heartbeat_started`; those of the other kinds `cron_run_started`."""
    return f"heartbeat_{what}" if kind == "heartbeat" else f"{kind}_run_{what}"


def scheduled(ref: RunRef) -> NewEvent:
    """Prefect has a run for the occurrence."""
    return _event(ref, f"scheduled:{ref.run_id}", "scheduled", "expected", ref.created)


def of_state(ref: RunRef, fact: StateFact) -> NewEvent | None:
    """What a state means to whoever follows the rule; None for one that is Prefect's own business."""
    found = _meaning(fact)
    if found is None:
        return None
    what, status = found
    more = {"message": fact.message[:_MESSAGE_LENGTH]} if fact.message else {}
    if status == "skipped":
        more["code"] = fact.message.partition(":")[0][:64]
    return _event(ref, f"state:{fact.state_id}", what, status, fact.at, **more)


def of_deletion(ref: RunRef, outcome: Outcome, reason: str, at: datetime) -> NewEvent | None:
    """What it means that Prefect has a run no more; None where that is a decision, which is logged as such."""
    key = f"deleted:{ref.run_id}"
    if outcome == "unknown":
        return _event(ref, key, "failed", "unknown", at, message=reason)
    if outcome == "skipped":
        return _event(ref, key, "skipped", "skipped", at, message=reason, code="deleted")
    return None


def of_return(ref: RunRef, at: datetime) -> NewEvent:
    """A held run that was taken for deleted is in Prefect after all: it waits again."""
    key = f"returned:{ref.run_id}:{at.isoformat()}"
    return _event(ref, key, "missed", "missed", at, message="its run is in Prefect again")


def _meaning(fact: StateFact) -> tuple[str, str] | None:
    match fact.type:
        case "RUNNING":
            return "started", "running"
        case "COMPLETED":
            return "completed", "quiet" if fact.name == QUIET else "completed"
        case "FAILED":
            return "failed", "timed_out" if fact.name == TIMED_OUT else "failed"
        case "CRASHED":
            return "failed", "unknown" if fact.abandons else "failed"
        case "CANCELLED" if fact.name == SKIPPED:
            return "skipped", "skipped"
        case "CANCELLED" if fact.resolves is None:
            return "cancelled", "cancelled"
        case "PAUSED" if fact.holds:
            return "missed", "missed"
        case _:
            return None


def _event(ref: RunRef, key: str, what: str, status: str, at: datetime, **more: Any) -> NewEvent:
    payload = {"due": ref.due.isoformat(), "cause": ref.cause, "run_id": ref.run_id, "run_name": ref.name}
    if ref.delivery_id is not None:
        payload["delivery_id"] = ref.delivery_id
    return NewEvent(
        key,
        event_type(ref.kind, what),
        ref.kind,
        ref.rule_id,
        ref.owner_id,
        at,
        status,
        payload | more,
        session_id=ref.session_id,
    )
