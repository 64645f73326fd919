"""Late runs that their rule lets run all the same: the gateway lets them go in turn, so they are left to it."""

from __future__ import annotations

import time
from uuid import UUID

from prefect.client.schemas.objects import FlowRun

from ..firing.pregate import catches_up

# The gateway looks every ten seconds. Where none has taken a run by then, there is none, and the worker begins it.
PATIENCE = 60.0
_MOST = 10_000  # runs that are remembered


class Turns:
    """When runs begin: at their instants, or, where the gateway may let them go in turn, a while after."""

    def __init__(self) -> None:
        self._since: dict[UUID, float] = {}

    def begins(self, flow_run: FlowRun) -> float | None:
        """When (epoch seconds) to begin a run that waits; None: it does not wait for a time."""
        due, now = flow_run.next_scheduled_start_time, time.time()
        if due is None or not catches_up(flow_run, now):
            return None if due is None else due.timestamp()
        since = self._since.setdefault(flow_run.id, now)
        while len(self._since) > _MOST:
            del self._since[next(iter(self._since))]
        return since + PATIENCE
