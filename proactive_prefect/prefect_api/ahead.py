"""One scheduled run of the future: found, or made now as Prefect's scheduler would make it later."""

from __future__ import annotations

from datetime import datetime, timedelta

from .client import PrefectApi
from .runs import FlowRun, find_runs


async def run_due_at(api: PrefectApi, deployment_id: str, due: datetime) -> FlowRun | None:
    """The scheduled run of the deployment that is due then, made if it is not there yet; None if none is due.

    It has the key that the scheduler would give it, so that none is made twice, now or later. Raises PrefectError.
    """
    found = await _find(api, deployment_id, due)
    if found is None:
        until = due + timedelta(seconds=1)
        await api.post(
            f"/deployments/{deployment_id}/schedule",
            {"start_time": due.isoformat(), "end_time": until.isoformat(), "min_runs": 1},
        )
        found = await _find(api, deployment_id, due)
    return found


async def _find(api: PrefectApi, deployment_id: str, due: datetime) -> FlowRun | None:
    then = {"expected_start_time": {"after_": due.isoformat(), "before_": due.isoformat()}}
    found = await find_runs(api, [deployment_id], then)
    return next((run for run in found if run.auto_scheduled), None)
