"""How a worker of type proactive signs the runs that it claims, so that anybody can tell whose a run is."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from prefect.client.schemas.objects import FlowRun, State

from ..rules.state_names import MISSED

HEARTBEAT = "prefect.flow-run.heartbeat"  # the event by which Prefect's engine, or our worker, says that a run lives
_AT_WORK = ("PENDING", "RUNNING", "CANCELLING")
# Paused states of runs that no process works on. `pause_flow_run` has another: its process waits to be resumed.
_LEFT = (MISSED, "Suspended")
HELD = {"type": {"any_": [*_AT_WORK, "PAUSED"]}, "name": {"not_any_": list(_LEFT)}}
"""Prefect's filter for the states of runs that belong to a process, which is expected to be alive."""
SILENCE = 50.0  # seconds without a sign after which a worker that cannot be looked at is taken for dead
IN_MESSAGE = re.compile(r"'(?P<worker>.*)' on (?P<host>\S*) \[(?P<mark>[0-9a-f]{12})\]$")
_IN_PID = re.compile(r"^(?P<worker>.*)@(?P<host>[^@#]*)#(?P<mark>[0-9a-f]{12}):\d+$")


@dataclass(frozen=True)
class Owner:
    """One worker process: `mark` is its own, `worker` is the name that it shares with those before it."""

    worker: str
    host: str
    mark: str

    def signature(self, pid: int) -> str:
        """For `infrastructure_pid`: this worker's process `pid`."""
        return f"{self.worker}@{self.host}#{self.mark}:{pid}"

    def claim(self) -> str:
        """For the message of a claim."""
        return f"Claimed by worker '{self.worker}' on {self.host} [{self.mark}]"


def is_held(kind: str | None, name: str | None) -> bool:
    """Whether a run in a state of that type and name belongs to a process, as `HELD` has it."""
    return kind in _AT_WORK or (kind == "PAUSED" and name not in _LEFT)


def owner_of(flow_run: FlowRun) -> Owner | None:
    """Who has signed for the run, if it was a worker of this type."""
    message = (flow_run.state and flow_run.state.message) or ""
    found = IN_MESSAGE.search(message) or _IN_PID.match(flow_run.infrastructure_pid or "")
    return Owner(**found.groupdict()) if found else None


def owner_in(states: Iterable[State[Any]]) -> Owner | None:
    """Who signed last in the history: a run that was cancelled right after it began has it in former states only."""
    for state in reversed(list(states)):
        if found := IN_MESSAGE.search(state.message or ""):
            return Owner(**found.groupdict())
    return None
