"""Events and histories for the ledger's tests."""

from __future__ import annotations

from datetime import UTC, datetime

from proactive_prefect.ledger.log import NewEvent

NOON = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


def an_event(key: str, *, at: datetime = NOON, rule_id: str = "disk") -> NewEvent:
    """An event that nothing else depends on."""
    return NewEvent(key, "heartbeat_completed", "heartbeat", rule_id, "local", at, "completed", {"run_id": key})
