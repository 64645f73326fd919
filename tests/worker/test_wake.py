"""What the worker makes of Prefect's events."""

from __future__ import annotations

from uuid import uuid4

import pytest
from prefect.events import Event

from proactive_prefect.worker.wake import asks_to_stop


def of_state(kind: str, name: str) -> Event:
    """The event of a run's new state."""
    resource = {
        "prefect.resource.id": f"prefect.flow-run.{uuid4()}",
        "prefect.state-type": kind,
        "prefect.state-name": name,
    }
    return Event(event=f"prefect.flow-run.{name}", resource=resource, id=uuid4())


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
