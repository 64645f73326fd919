"""Retries of a flow: its own process waits for the next one, and no worker begins it while that process lives.

Prefect marks such a run by `retry_type` in its policy. A pool's answer leaves it out, and so does who reads the run by
itself; where its process is gone, the mark has to go too.
"""

from __future__ import annotations

from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.objects import FlowRun

from ..prefect_api.runs import AWAITING_RETRY

RESUMING = "Resuming"  # the name of the state of a run that was suspended and resumed, until it is claimed
_BY_ITS_PROCESS = "in_process"


def waits_for_a_worker(flow_run: FlowRun) -> bool:
    """Whether the run waits to be begun, and not for a retry in its own process."""
    state = flow_run.state
    if state is None:
        return True
    retries = state.name == AWAITING_RETRY and flow_run.empirical_policy.retry_type == _BY_ITS_PROCESS
    return state.is_scheduled() and not retries


async def leave_to_workers(client: PrefectClient, flow_run: FlowRun) -> None:
    """The run's process is gone, or it left that when it was suspended: any worker may begin it when it is due."""
    if flow_run.state is not None and flow_run.state.is_scheduled():
        policy = flow_run.empirical_policy
        if policy.retry_type == _BY_ITS_PROCESS:
            await client.update_flow_run(
                flow_run.id, empirical_policy=policy.model_copy(update={"retry_type": "reschedule"})
            )
