"""The one place for names of Prefect that are not public, each with the reason it is needed.

`tests/worker/test_seam.py` fails when one of them goes or changes its form.
"""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any
from uuid import UUID

import certifi
import prefect.client.orchestration as orchestration
import prefect.flow_engine as flow_engine
from prefect._flow_run_suspension import FlowRunSuspensionRequest, mark_flow_run_suspension_requested
from prefect.client.schemas.objects import State
from prefect.runner._control_channel import ControlChannel, ControlSignalStatus
from prefect.settings import PREFECT_API_SSL_CERT_FILE

__all__ = ["ControlChannel", "ControlSignalStatus", "mark_suspended", "quieten_engine", "share_tls"]


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


class _SharedTls:
    """The `ssl` module as `prefect.client.orchestration` sees it, with one verified context per certificate file."""

    def __init__(self) -> None:
        self._contexts: dict[str, ssl.SSLContext] = {}

    def create_default_context(self, *, cafile: str | None = None) -> ssl.SSLContext:
        if cafile is None:  # Prefect goes on to change that one
            return ssl.create_default_context()
        if cafile not in self._contexts:
            self._contexts[cafile] = ssl.create_default_context(cafile=cafile)
        return self._contexts[cafile]

    def __getattr__(self, name: str) -> Any:
        return getattr(ssl, name)


def share_tls() -> None:
    """Read the certificates once for all runs: done anew by each client of each run, it is half the cost of a spare."""
    module: Any = orchestration
    module.ssl = shared = _SharedTls()
    shared.create_default_context(cafile=PREFECT_API_SSL_CERT_FILE.value() or certifi.where())


def mark_suspended(flow_run_id: UUID, state: State[Any]) -> None:
    """Tell the engine of this process that its run was suspended from outside: it stops at its next boundary."""
    mark_flow_run_suspension_requested(flow_run_id, state)
