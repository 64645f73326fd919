"""Missed runs, held until somebody decides: what Prefect's own Resume and Cancel do, and a later time."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from prefect.states import Scheduled

from ..errors import InputError
from .client import PrefectApi
from .runs import FlowRun, cancel_run, find_runs, read_run, set_state

_PAGE = 200
MISSED = "Missed"


async def missed_runs(api: PrefectApi, deployment_ids: Sequence[str]) -> list[FlowRun]:
    """All runs of the deployments that wait for a decision, oldest due first. Raises PrefectError."""
    held: dict[str, Any] = {"state": {"type": {"any_": ["PAUSED"]}, "name": {"any_": [MISSED]}}}
    found: list[FlowRun] = []
    while deployment_ids:
        page = await find_runs(
            api, deployment_ids, held, sort="EXPECTED_START_TIME_ASC", limit=_PAGE, offset=len(found)
        )
        found += page
        if len(page) < _PAGE:
            break
    return found


async def approve_run(api: PrefectApi, run_id: UUID | str) -> FlowRun:
    """Let a missed run go now, with its original due time. Raises InputError unless it is Missed, PrefectError."""
    await _missed(api, run_id)
    answer = await api.post(f"/flow_runs/{run_id}/resume", {})
    return await _decided(api, run_id, accepted=answer["status"] == "ACCEPT")


async def reschedule_run(api: PrefectApi, run_id: UUID | str, at: datetime) -> FlowRun:
    """Let a missed run go at `at` (aware). Raises InputError unless it is Missed, PrefectError."""
    if at.tzinfo is None:
        raise InputError(f"{at.isoformat()} has no offset; allowed: an aware datetime")
    await _missed(api, run_id)
    answer = await set_state(api, run_id, Scheduled(scheduled_time=at, name="Rescheduled"))
    return await _decided(api, run_id, accepted=answer.status.value == "ACCEPT")


async def delete_missed_run(api: PrefectApi, run_id: UUID | str) -> FlowRun:
    """Drop a missed run: it ends as Cancelled. Raises InputError unless it is Missed, PrefectError."""
    await _missed(api, run_id)
    accepted = await cancel_run(api, run_id, reason="Missed, and dropped by a person.")
    return await _decided(api, run_id, accepted=accepted)


async def _missed(api: PrefectApi, run_id: UUID | str) -> None:
    state = (await read_run(api, run_id)).state
    if state is None or not state.is_paused() or state.name != MISSED:
        raise InputError(f"run {run_id} is {state.name if state else 'without a state'}; allowed: a run that is Missed")


async def _decided(api: PrefectApi, run_id: UUID | str, *, accepted: bool) -> FlowRun:
    run = await read_run(api, run_id)
    if not accepted:  # somebody else was faster
        raise InputError(f"run {run_id} is {run.state.name if run.state else 'without a state'} already")
    return run
