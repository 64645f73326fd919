"""Flow runs: create, read, move from state to state, cancel.

All calls bear being made twice: a creation (`creating`) has an idempotency key, a state is set or refused as a whole.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from prefect.client.schemas.objects import FlowRun, State
from prefect.client.schemas.responses import OrchestrationResult
from prefect.states import Cancelled, Cancelling, to_state_create

from .client import PrefectApi
from .creating import CAUSE_LABEL, PAYLOAD_LABEL, NewRun, create_run, create_runs, make_run

__all__ = [
    "AWAITING_RETRY",
    "CAUSE_LABEL",
    "PAYLOAD_LABEL",
    "FlowRun",
    "NewRun",
    "cancel_run",
    "count_runs",
    "create_run",
    "create_runs",
    "find_runs",
    "make_run",
    "read_run",
    "recent_runs",
    "run_states",
    "set_state",
    "upcoming_runs",
]

AWAITING_RETRY = "AwaitingRetry"


async def read_run(api: PrefectApi, run_id: UUID | str) -> FlowRun:
    """The run. Raises Refused (status 404) where there is none."""
    return FlowRun.model_validate(await api.get(f"/flow_runs/{run_id}"))


async def find_runs(
    api: PrefectApi,
    deployment_ids: Sequence[UUID | str],
    flow_runs: Mapping[str, Any] | None = None,
    *,
    sort: str = "EXPECTED_START_TIME_DESC",
    limit: int = 100,
    offset: int = 0,
) -> list[FlowRun]:
    """Runs of the deployments, at most `limit` (200 is the server's own limit), that pass Prefect's filter."""
    body: dict[str, Any] = {
        "deployments": {"id": {"any_": [str(one) for one in deployment_ids]}},
        "sort": sort,
        "limit": limit,
        "offset": offset,
    }
    if flow_runs:
        body["flow_runs"] = flow_runs
    return [FlowRun.model_validate(run) for run in await api.post("/flow_runs/filter", body)]


async def recent_runs(api: PrefectApi, deployment_id: UUID | str, *, limit: int = 20) -> list[FlowRun]:
    """The latest runs of a deployment that have begun or ended, latest due first."""
    begun = {"state": {"type": {"not_any_": ["SCHEDULED"]}}}
    return await find_runs(api, [deployment_id], begun, limit=limit)


async def upcoming_runs(
    api: PrefectApi, deployment_ids: Sequence[UUID | str], *, until: datetime | None = None, limit: int = 100
) -> list[FlowRun]:
    """The runs that wait for their time, next first; with `until`, only those due by then."""
    waiting: dict[str, Any] = {"state": {"type": {"any_": ["SCHEDULED"]}}}
    if until is not None:
        waiting["next_scheduled_start_time"] = {"before_": until.isoformat()}
    return await find_runs(api, deployment_ids, waiting, sort="NEXT_SCHEDULED_START_TIME_ASC", limit=limit)


async def count_runs(api: PrefectApi, deployment_id: UUID | str, flow_runs: Mapping[str, Any]) -> int:
    """How many runs of a deployment pass Prefect's filter."""
    body = {"deployments": {"id": {"any_": [str(deployment_id)]}}, "flow_runs": flow_runs}
    return int(await api.post("/flow_runs/count", body))


async def run_states(api: PrefectApi, run_id: UUID | str) -> list[State[Any]]:
    """Every state that the run has been in, oldest first."""
    states = [State.model_validate(one) for one in await api.get("/flow_run_states/", flow_run_id=str(run_id))]
    return sorted(states, key=lambda state: state.timestamp)


async def set_state(
    api: PrefectApi, run_id: UUID | str, state: State[Any], *, transition: UUID | None = None, force: bool = False
) -> OrchestrationResult[Any]:
    """Propose a state. Prefect may refuse: the answer's `status` says so, and its `state` is the one that holds.

    `transition`: an id of which only one proposal is taken, as `fence` has it.
    `force` goes around Prefect's rules, and leaves a running run's slot taken: only for runs that hold none.
    """
    proposal = to_state_create(state)
    proposal.state_details.transition_id = transition
    body = {"state": proposal.model_dump(mode="json"), "force": force}
    answer = await api.post(f"/flow_runs/{run_id}/set_state", body)
    return OrchestrationResult[Any].model_validate(answer)


async def cancel_run(api: PrefectApi, run_id: UUID | str, *, reason: str = "Cancelled by a person.") -> bool:
    """Cancel a run as Prefect's UI does: one at work is asked to stop (its worker ends it), any other ends at once.

    Returns False where the run had ended already.
    """
    run = await read_run(api, run_id)
    if run.state is None or run.state.is_final():
        return False
    working = run.state.is_running() or run.state.is_pending() or run.state.is_cancelling()
    state: State[Any] = Cancelling(message=reason) if working else Cancelled(message=reason)
    await set_state(api, run_id, state)
    return True
