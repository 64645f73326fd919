"""The one place for names of Prefect that are not public, each with the reason it is needed.

`tests/worker/test_seam.py` fails when one of them goes or changes its form.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any
from uuid import UUID

import prefect.flow_engine as flow_engine
from prefect._flow_run_suspension import FlowRunSuspensionRequest, mark_flow_run_suspension_requested
from prefect.client.schemas.objects import State
from prefect.runner._control_channel import ControlChannel, ControlSignalStatus

__all__ = ["ControlChannel", "ControlSignalStatus", "mark_suspended", "quieten_engine"]


@contextmanager
def _suspension_comes_by_pipe(flow_run_id: UUID, suspension_request: FlowRunSuspensionRequest) -> Iterator[None]:
    """Stands in for `observe_flow_run_suspension`; the request is already registered by its caller."""
    yield


def quieten_engine() -> None:
    """Let the worker do once for all runs what the engine does in every run before its first line.

    The engine opens a websocket in a thread of its own to hear of its suspension, and waits for it; and one more to
    send signs of life. The worker hears and sends both for all its runs over the connections it has.
    """
    engine: Any = flow_engine
    engine.observe_flow_run_suspension = _suspension_comes_by_pipe
    engine._send_heartbeats = lambda *_args, **_kwargs: nullcontext()


def mark_suspended(flow_run_id: UUID, state: State[Any]) -> None:
    """Tell the engine of this process that its run was suspended from outside: it stops at its next boundary."""
    mark_flow_run_suspension_requested(flow_run_id, state)
