"""Missed runs in Prefect: held there until somebody decides, as its own Resume and Cancel do.

Each call bears being made twice, and does nothing to a run that has gone on meanwhile.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from prefect.client.schemas.objects import State, StateType
from prefect.states import Cancelled, Scheduled

from ..rules.models import KINDS
from ..rules.state_names import MISSED
from .changes import RESCHEDULED
from .client import PrefectApi, Refused
from .runs import AWAITING_RETRY, FlowRun, create_run, read_run, run_states, set_state

FINAL = frozenset({404, 409, 422})
"""What Prefect refuses with one of these it refuses always; any other may pass, as where it is busy, or a key wrong."""
_PAGE = 200


async def runs_with_ids(api: PrefectApi, run_ids: Sequence[str]) -> list[FlowRun]:
    """The runs of these ids that Prefect still has."""
    found: list[FlowRun] = []
    for first in range(0, len(run_ids), _PAGE):
        wanted = {"id": {"any_": list(run_ids[first : first + _PAGE])}}
        page = await api.post("/flow_runs/filter", {"flow_runs": wanted, "limit": _PAGE})
        found += [FlowRun.model_validate(run) for run in page]
    return found


async def held_runs(api: PrefectApi) -> list[str]:
    """The ids of all runs of rules that wait for a decision. Raises Refused, PrefectUnreachable."""
    held = {"state": {"type": {"any_": ["PAUSED"]}, "name": {"any_": [MISSED]}}}
    found: list[str] = []
    while True:
        body = {"flows": {"name": {"any_": list(KINDS)}}, "flow_runs": held, "sort": "ID_DESC", "limit": _PAGE}
        page = await api.post("/flow_runs/filter", {**body, "offset": len(found)})
        found += [str(run["id"]) for run in page]
        if len(page) < _PAGE:
            return found


async def create_missed(
    api: PrefectApi, deployment_id: str, rule_id: str, snapshot: str, due: datetime, held: State[Any]
) -> FlowRun:
    """Make the run that Prefect's scheduler never made: of the rule as it was at `due`, in the state `held`.

    Prefect takes a run's expected start from its first state only, so it is scheduled first. A worker that takes it in
    between asks the gate, which says the same as here.
    """
    run = await create_run(
        api,
        deployment_id,
        idempotency_key=f"missed {rule_id} {due.isoformat()}",
        parameters={"rule": snapshot},
        state=Scheduled(scheduled_time=due),
        cause="schedule",
    )
    await hold_run(api, run, held)
    return run


async def hold_run(api: PrefectApi, run: FlowRun, held: State[Any]) -> bool:
    """Bring a run that waits, or was claimed, to the state `held`; False if something else has become of it since."""
    # Only by force goes a run from there to Paused; so look first that nobody has taken it any further.
    state = (await read_run(api, run.id)).state
    if (
        state is None
        or run.state is None
        or state.id != run.state.id
        or not (state.is_scheduled() or state.is_pending())
    ):
        return False
    await set_state(api, run.id, held, force=True)
    return True


async def resume_run(api: PrefectApi, run_id: UUID | str) -> bool:
    """Let a held run go now, with its original due time; False if it is not held any more, or gone."""
    try:
        await read_run(api, run_id)  # to a resume of a run that is gone Prefect answers 500
        answer = await api.post(f"/flow_runs/{run_id}/resume", {})
    except Refused as refused:
        if refused.status == 404:
            return False
        raise
    return bool(answer["status"] == "ACCEPT")


async def crash_run(api: PrefectApi, run_id: UUID | str, reason: str) -> None:
    """End a run whose process is gone."""
    await set_state(api, run_id, State(type=StateType.CRASHED, message=reason))


async def retry_run(api: PrefectApi, run_id: UUID | str, at: datetime, *, most: int) -> bool:
    """Let a crashed run run again at `at`, if it has not been so `most` times; False if it has, or is not crashed."""
    states = await run_states(api, run_id)
    if not states or not states[-1].is_crashed() or sum(state.name == AWAITING_RETRY for state in states) >= most:
        return False
    answer = await set_state(api, run_id, Scheduled(scheduled_time=at, name=AWAITING_RETRY))
    return answer.status.value == "ACCEPT"


async def drop_run(
    api: PrefectApi, run_id: UUID | str, reason: str, *, name: str | None = None, only_held: bool = False
) -> bool:
    """End a run that has not begun, as Cancelled (or with that name); False if it has begun, has ended or is gone.

    `only_held`: one that somebody has resumed meanwhile is left alone too.
    """
    try:
        state = (await read_run(api, run_id)).state
        if state is None or not (state.is_paused() or state.is_scheduled()) or (only_held and state.name != MISSED):
            return False
        ended: State[Any] = Cancelled(message=reason) if name is None else Cancelled(name=name, message=reason)
        answer = await set_state(api, run_id, ended)
    except Refused as refused:
        if refused.status == 404:
            return False
        raise
    return answer.status.value == "ACCEPT"


async def create_rescheduled(
    api: PrefectApi, deployment_id: str, rule_id: str, parameters: Mapping[str, Any], at: datetime, origin: str
) -> FlowRun:
    """Make the run that stands for the missed occurrence whose key is `origin`, at `at`."""
    return await create_run(
        api,
        deployment_id,
        idempotency_key=f"{RESCHEDULED} {rule_id} {origin}",
        parameters=parameters,
        state=Scheduled(scheduled_time=at),
    )
