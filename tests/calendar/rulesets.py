"""Rules and their occurrences, written into a ledger for the calendar's tests."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from proactive_prefect.calendar.entries import Asked
from proactive_prefect.ledger.db import Ledger
from proactive_prefect.ledger.occurrences import apply
from proactive_prefect.ledger.outcomes import RunRef
from proactive_prefect.ledger.tables import Occurrence
from proactive_prefect.ledger.versions import SeenRule, Status, note_rules
from proactive_prefect.rules.models import RULE_MODELS, to_snapshot
from tests.ledger.histories import LONG_AGO, NOON, story

DAY, HOUR, MINUTE = timedelta(days=1), timedelta(hours=1), timedelta(minutes=1)
MIDNIGHT = NOON.replace(hour=0)
CREATED = NOON - timedelta(days=30)
ACTION = {"type": "python", "call": "pkg.module:function"}
RAN = ("SCHEDULED/Scheduled", "PENDING/Pending", "RUNNING/Running", "COMPLETED/Completed")
HELD = ("SCHEDULED/Scheduled", "SCHEDULED/Late", "PAUSED/Missed")

DAILY: dict[str, Any] = {"kind": "cron", "id": "report", "cron": "0 9 * * *", "description": "the daily report"}
MINUTELY: dict[str, Any] = {"kind": "heartbeat", "id": "pulse", "every": "1m"}
HOOK: dict[str, Any] = {"kind": "webhook", "id": "deploy"}


def seen(rule: dict[str, Any], status: Status = "active", *, at: datetime = CREATED) -> SeenRule:
    """A rule as Prefect had it at a time."""
    fields = {name: value for name, value in rule.items() if name != "kind"}
    made = RULE_MODELS[rule["kind"]].model_validate({"action": ACTION, **fields})
    return SeenRule(made.id, made.kind, f"deployment-{made.id}", to_snapshot(made), status, at, at)


async def note(ledger: Ledger, *rules: SeenRule, at: datetime = CREATED) -> None:
    """Let these be all the rules."""
    async with ledger.write() as session:
        await note_rules(session, rules, at, log_since=LONG_AGO)


def run_of(rule: dict[str, Any], due: datetime, run_id: str | None = None, **more: Any) -> RunRef:
    """A run of the rule."""
    run_id = run_id or f"{rule['id']} {due.isoformat()} {more.get('delivery_id', '')}".strip()
    cause = "webhook" if rule["kind"] == "webhook" else "schedule"
    return RunRef(
        run_id, f"run of {rule['id']}", None, rule["id"], rule["kind"], "local", due, cause, due - HOUR, **more
    )


async def tell(ledger: Ledger, ref: RunRef, *states: str, messages: Sequence[str] = ()) -> Occurrence:
    """Let the run have gone through these states."""
    async with ledger.write() as session:
        return await apply(session, ref, story(ref, *states, messages=messages), log_since=LONG_AGO)


def asked(start: datetime = MIDNIGHT, end: datetime | None = None, **only: Iterable[str]) -> Asked:
    """A day of the calendar, or from `start` to `end`."""
    return Asked(start, end or start + DAY, **{name: frozenset(values) for name, values in only.items()})


def at(text: str) -> datetime:
    """An instant in UTC."""
    return datetime.fromisoformat(text).replace(tzinfo=UTC)
