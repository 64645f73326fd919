"""What a run is told beside its parameters: the reasons that it was woken for, on its labels, as JSON text."""

from __future__ import annotations

import json
from collections.abc import Sequence
from uuid import UUID

from .client import PrefectApi
from .runs import FlowRun, create_run, find_runs, read_run

WAKE_LABEL = "proactive.wakes"
MOST = 20
"""The reasons that a run is told at most; of more, the latest."""


async def run_with_wakes(api: PrefectApi, deployment_id: str, reasons: Sequence[str], *, key: str) -> FlowRun:
    """A run for now that is told these reasons; with the key of an earlier one, that one."""
    labels = {WAKE_LABEL: _text(reasons)}
    return await create_run(api, deployment_id, idempotency_key=key, labels=labels, cause="manual")


async def next_run(api: PrefectApi, deployment_id: str) -> FlowRun | None:
    """The next run that Prefect's scheduler has made and nobody has claimed; None where there is none."""
    waiting = {"state": {"type": {"any_": ["SCHEDULED"]}}}
    found = await find_runs(api, [deployment_id], waiting, sort="EXPECTED_START_TIME_ASC", limit=20)
    return next((run for run in found if run.auto_scheduled), None)


async def tell(api: PrefectApi, run_id: UUID, reasons: Sequence[str]) -> bool:
    """Put the reasons on a run that has not begun; whether it surely reads them. Raises Refused, PrefectUnreachable."""
    await api.call("PATCH", f"/flow_runs/{run_id}/labels", json={WAKE_LABEL: _text(reasons)})
    state = (await read_run(api, run_id)).state
    # A run reads its labels once it is Running: what is on it while it waits, or is being started, is read.
    return state is not None and (state.is_scheduled() or state.is_pending())


async def read_wakes(api: PrefectApi, run_id: UUID) -> tuple[str, ...]:
    """The reasons that a run was told."""
    return wakes_of(await read_run(api, run_id))


def wakes_of(run: FlowRun) -> tuple[str, ...]:
    """The reasons on the run's labels; none where there are none, or where they cannot be read."""
    try:
        found = json.loads(str(run.labels.get(WAKE_LABEL, "[]")))
    except ValueError:
        return ()
    return tuple(str(reason) for reason in found) if isinstance(found, list) else ()


def _text(reasons: Sequence[str]) -> str:
    return json.dumps(list(reasons)[-MOST:])
