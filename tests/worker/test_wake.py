"""What the worker makes of Prefect's events."""

from __future__ import annotations

from uuid import uuid4

import pytest
from prefect.events import Event

from proactive_prefect.worker.wake import asks_to_stop, is_only_polled


@pytest.mark.parametrize(
    ("kind", "name", "stops"),
    [
        ("CANCELLING", "Cancelling", True),
        ("CANCELLED", "Cancelled", True),  # at once, as somebody may set it over the API
        ("CANCELLED", "Skipped", False),  # else the engine would tell that it was cancelled, and no more why
        ("COMPLETED", "Completed", False),
        ("RUNNING", "Running", False),
    ],
)
def test_a_run_is_stopped_when_somebody_cancels_it_and_not_when_its_gate_skips_it(
    kind: str, name: str, stops: bool
) -> None:
    """The gate's own word, heard while the process is about to end, is no order to end it."""
    assert asks_to_stop(kind, name) is stops


@pytest.mark.parametrize(
    ("event", "polled"),
    [
        ("prefect.deployment.not-ready", True),
        ("prefect.work-queue.ready", True),
        ("prefect.deployment.updated", False),
        ("prefect.work-queue.paused", False),
        ("prefect.work-pool.ready", False),
    ],
)
def test_what_only_tells_that_somebody_polled_is_no_change(event: str, polled: bool) -> None:
    """Each look of the worker sets deployments and queues ready: to look again for that would never end."""
    resource = {"prefect.resource.id": f"prefect.deployment.{uuid4()}"}
    assert is_only_polled(Event(event=event, resource=resource, id=uuid4())) is polled
