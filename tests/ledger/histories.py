"""Events and histories of runs for the ledger's tests: by hand, and by hypothesis."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from hypothesis import strategies as st

from proactive_prefect.ledger.log import NewEvent
from proactive_prefect.ledger.outcomes import RunRef, StateFact

NOON = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
LONG_AGO = datetime(2000, 1, 1, tzinfo=UTC)

# What Prefect and the gate let follow what; a run ends where nothing follows, or where its history stops.
STARTS = ["SCHEDULED/Scheduled", "CANCELLED/Skipped", "PAUSED/Missed"]
NEXT = {
    "SCHEDULED/Scheduled": [
        "SCHEDULED/Late",
        "PENDING/Pending",
        "CANCELLED/Skipped",
        "CANCELLED/Cancelled",
        "PAUSED/Missed",
    ],
    "SCHEDULED/Late": ["PENDING/Pending", "PAUSED/Missed", "CANCELLED/Skipped"],
    "SCHEDULED/Resuming": ["PENDING/Pending", "CANCELLED/Skipped"],
    "PENDING/Pending": ["RUNNING/Running", "SCHEDULED/Scheduled", "CRASHED/Crashed"],
    "RUNNING/Running": [
        "COMPLETED/Completed",
        "COMPLETED/Quiet",
        "FAILED/Failed",
        "FAILED/TimedOut",
        "CRASHED/Crashed",
        "CANCELLED/Skipped",
        "CANCELLING/Cancelling",
        "PAUSED/Missed",
        "SCHEDULED/AwaitingRetry",
    ],
    "CANCELLING/Cancelling": ["CANCELLED/Cancelled"],
    "PAUSED/Missed": ["SCHEDULED/Resuming", "CANCELLED/Cancelled"],
    "FAILED/Failed": ["SCHEDULED/AwaitingRetry"],
    "SCHEDULED/AwaitingRetry": ["RUNNING/Running"],
}


def an_event(key: str, *, at: datetime = NOON, rule_id: str = "disk") -> NewEvent:
    """An event that nothing else depends on."""
    return NewEvent(key, "heartbeat_completed", "heartbeat", rule_id, "local", at, "completed", {"run_id": key})


def a_run(
    run_id: str = "run-1",
    *,
    rule_id: str = "disk",
    kind: str = "heartbeat",
    due: datetime = NOON,
    cause: str = "schedule",
    delivery_id: str | None = None,
) -> RunRef:
    """A run of a rule, created an hour before it was due."""
    return RunRef(
        run_id,
        f"name-of-{run_id}",
        "deployment",
        rule_id,
        kind,
        "local",
        due,
        cause,
        due - timedelta(hours=1),
        delivery_id,
    )


def story(run: RunRef, *states: str, messages: Sequence[str] = ()) -> list[StateFact]:
    """The states "TYPE/Name" of a run, one after another, a second apart from its due time on."""
    facts, before = [], None
    for number, state in enumerate(states):
        kind, _, name = state.partition("/")
        message = messages[number] if number < len(messages) else ("overlap: busy" if name == "Skipped" else "")
        state_id = str(uuid.uuid5(uuid.NAMESPACE_OID, f"{run.run_id} {number} {state}"))
        facts.append(StateFact(run.run_id, state_id, kind, name, message, run.due + timedelta(seconds=number), before))
        before = name
    return facts


@st.composite
def histories(draw: st.DrawFn, run: RunRef) -> list[StateFact]:
    """A history as Prefect could tell it: one hold at most, and any number of states."""
    states = [draw(st.sampled_from(STARTS))]
    while following := [one for one in NEXT.get(states[-1], []) if one != "PAUSED/Missed" or one not in states]:
        if len(states) >= 9 or draw(st.integers(0, 9)) == 0:
            break
        states.append(draw(st.sampled_from(following)))
    return story(run, *states)


@st.composite
def shuffled(draw: st.DrawFn, facts: Sequence[StateFact]) -> list[StateFact]:
    """The same states in another order, some of them more than once."""
    again = draw(st.lists(st.sampled_from(list(facts)), max_size=len(facts)))
    return draw(st.permutations([*facts, *again]))
