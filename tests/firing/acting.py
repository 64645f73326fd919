"""What the tests of actions share: a rule around an action, a context, and a look at processes."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil

from proactive_prefect.firing.actions import act
from proactive_prefect.firing.results import Context, HeartbeatResult
from proactive_prefect.rules.models import HeartbeatRule

from ..support import wait_until

DUE = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def sample(name: str, **config: Any) -> dict[str, Any]:
    """A python action that calls a function of `samples.py`."""
    return {"type": "python", "call": f"tests.firing.samples:{name}", "config": config}


def context(**known: Any) -> Context:
    """The context of a run."""
    return Context(**{"rule_id": "r", "kind": "heartbeat", "due": DUE, "run_id": "run-1", **known})


async def run(action: dict[str, Any], *, timeout: str = "60s", **known: Any) -> HeartbeatResult:
    """Run one action once."""
    rule = HeartbeatRule.model_validate({"id": "r", "every": "1h", "action": action, "timeout": timeout})
    return await act(rule, context(**known))


async def noted(note: Path) -> list[int]:
    """The process ids that an action has written to `note`."""

    def read() -> list[int]:
        ids: list[int] = json.loads(note.read_text()) if note.exists() else []
        return ids

    return await wait_until(read, what=f"an action to write {note.name}")


def alive(pids: list[int]) -> list[int]:
    """Those of the processes that still run."""

    def runs(pid: int) -> bool:
        try:
            return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return False

    return [pid for pid in pids if runs(pid)]
