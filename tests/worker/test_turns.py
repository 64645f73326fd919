"""Late runs that catch up are left to the gateway for a while; all others begin at their instants."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
from prefect.client.schemas.objects import FlowRun
from prefect.states import Scheduled

from proactive_prefect.prefect_api.deployments import TAG
from proactive_prefect.rules.models import to_snapshot
from proactive_prefect.worker.turns import PATIENCE, Turns
from tests.gateway.conftest import rulebook

MINUTE = timedelta(minutes=1)
LATE = 10 * MINUTE


def run(late: timedelta = LATE, *, state: str = "Late", scheduled: bool = True, **rule: Any) -> FlowRun:
    """A run of a rule that runs what it missed, due so long ago."""
    fields = {"kind": "heartbeat", "id": "disk", "every": "1h", "on_missed": "run", "grace": "1m", **rule}
    due = datetime.now(UTC) - late
    return FlowRun(
        flow_id=uuid4(),
        tags=[TAG],
        parameters={"rule": to_snapshot(rulebook(fields).rules[0])},
        expected_start_time=due,
        next_scheduled_start_time=due,
        auto_scheduled=scheduled,
        state=Scheduled(scheduled_time=due, name=state),
    )


def test_a_late_run_is_left_to_the_gateway_for_a_while() -> None:
    """Where no gateway takes it by then, the worker begins it: the time counts from when it was first seen."""
    turns, late = Turns(), run()
    first = turns.begins(late)
    assert first is not None
    assert first == pytest.approx(time.time() + PATIENCE, abs=5)
    assert turns.begins(late) == first
    assert turns.begins(run(on_missed="latest", on_overlap="skip")) is not None


@pytest.mark.parametrize(
    "made",
    [
        lambda: run(MINUTE / 2),  # within its grace
        lambda: run(-MINUTE),  # yet to come
        lambda: run(state="Resuming"),  # somebody let it go: the gateway itself, say
        lambda: run(state="AwaitingConcurrencySlot"),
        lambda: run(scheduled=False),  # a person's, or a webhook's
        lambda: run(on_missed="ask"),  # the gate holds it
        lambda: run(on_overlap="queue_all"),  # it waits in the queue of its rule
        lambda: FlowRun(flow_id=uuid4(), next_scheduled_start_time=datetime.now(UTC), parameters={"rule": "no rule"}),
    ],
)
def test_others_begin_at_their_instants(made: Callable[[], FlowRun]) -> None:
    """Nothing is put off that nobody has to let go."""
    other = made()
    assert other.next_scheduled_start_time is not None
    assert Turns().begins(other) == other.next_scheduled_start_time.timestamp()


def test_a_run_without_an_instant_does_not_begin() -> None:
    """As one that was begun meanwhile."""
    assert Turns().begins(FlowRun(flow_id=uuid4())) is None
