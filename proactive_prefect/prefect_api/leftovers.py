"""Runs whose process is gone: found and settled, so that none stays Pending, Running or Cancelling for ever."""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

from .client import PrefectApi, Refused
from .signatures import HELD

_PAGE = 200
Run = dict[str, Any]


async def claimed_runs(api: PrefectApi, pools: Mapping[str, Any]) -> list[Run]:
    """All runs that some process has claimed and not ended, of the work pools that pass Prefect's filter `pools`."""
    found: list[Run] = []
    while True:
        page: list[Run] = await api.post(
            "/flow_runs/filter",
            {
                "work_pools": pools,
                "flow_runs": {"state": HELD},
                "sort": "EXPECTED_START_TIME_ASC",
                "limit": _PAGE,
                "offset": len(found),
            },
        )
        found += page
        if len(page) < _PAGE:
            return found


def of_this_machine(run: Run, alive: Callable[[int], bool]) -> bool:
    """Whether the run's process was on this machine and is gone, by what its worker noted (`host:pid`)."""
    host, _, pid = str(run.get("infrastructure_pid") or "").rpartition(":")
    return host == socket.gethostname() and pid.isdigit() and not alive(int(pid))


async def settle_run(api: PrefectApi, run: Run, *, why: str, crashed: bool) -> bool:
    """Settle one claimed run whose process is gone; False if Prefect refused (it has ended meanwhile, or is gone).

    A Pending run had not begun, so it goes back to Scheduled for now: nothing is lost and nothing runs twice.
    A Running one ends as Crashed or Cancelled, a Cancelling one as Cancelled; `why` is the message people read.
    """
    kind = run["state_type"]
    state: dict[str, Any]
    if kind == "PENDING":
        state = {
            "type": "SCHEDULED",
            "name": "Scheduled",
            "message": f"{why} It had not begun: it is due again.",
            "state_details": {"scheduled_time": run.get("expected_start_time") or datetime.now(UTC).isoformat()},
        }
    elif kind == "CANCELLING" or not crashed:
        state = {"type": "CANCELLED", "name": "Cancelled", "message": why}
    else:
        state = {"type": "CRASHED", "name": "Crashed", "message": why}
    try:
        answer = await api.post(f"/flow_runs/{run['id']}/set_state", {"state": state, "force": False})
    except Refused:
        return False
    return bool(answer["status"] == "ACCEPT")
