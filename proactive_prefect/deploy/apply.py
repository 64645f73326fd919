"""Make the server what a plan says, with the least change, so that a crash at any point leaves work for the next
`apply` and nothing half done that it would not see."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from ..errors import InputError, PrefectError
from ..firing.gate import Skip
from ..firing.outcome import skipped
from ..prefect_api.client import PrefectApi
from ..prefect_api.deployments import (
    SLUG,
    coming_runs,
    create_deployment,
    delete_deployment,
    delete_schedule,
    flow_id,
    make_runs,
    put_schedule,
    update_deployment,
)
from ..prefect_api.fence import Fence
from ..prefect_api.pools import create_pool, create_queue
from ..prefect_api.runs import find_runs, set_state
from ..rules.timing import next_due
from .alerts import apply_alerts
from .compile import DeploymentSpec
from .diff import Change
from .plan import Plan, PoolChange

Progress = Callable[[str], None]

# Prefect's scheduler makes a new deployment's runs within 5 s; what is due before that is asked for at once.
_SOON = timedelta(seconds=15)
# How far this machine's clock may be ahead of the server's without a tick lost.
_CLOCKS_APART = timedelta(seconds=10)
_ROUNDS = 5
_FEW, _MANY = 5, 200


async def apply_plan(api: PrefectApi, plan: Plan, on_progress: Progress = lambda step: None) -> None:
    """Do what `plan` says; `on_progress` is called with a line after each of its `writes` steps.

    Raises InputError, before any write, if the plan has obstacles; Refused, PrefectUnreachable.
    """
    if plan.obstacles:
        first, more = plan.obstacles[0], len(plan.obstacles) - 1
        raise InputError(first.message + (f" (and {more} more)" if more else ""), hint=first.hint)
    for pool in plan.pools:
        await _pool(api, pool)
        on_progress(f"pool {pool.name}")
    flows = {name: await flow_id(api, name) for name in {spec.flow_name for spec in _created(plan)}}

    # One after another: the embedded database refuses a write that has read before another one came in between, so
    # several at once take longer than in turn, and may never get through.
    for spec in plan.added:
        await _create(api, spec, flows[spec.flow_name])
        on_progress(f"added {spec.flow_name}/{spec.name}")
    for change in plan.changed:
        if not change.spec.rule.enabled:  # before the change, without which no later apply would look here again
            await _drop_waiting(api, change)
        await _whole(_change(api, change, flows.get(change.spec.flow_name)))
        on_progress(f"changed {change.spec.flow_name}/{change.spec.name}")
    for found in plan.removed:
        await delete_deployment(api, found.id)
        on_progress(f"removed {found.flow_name}/{found.name}")
    for change in plan.changed:
        await _settle(api, change)
    await apply_alerts(api, plan.alerts, on_progress)


async def _create(api: PrefectApi, spec: DeploymentSpec, flow: str) -> None:
    deployment_id = await create_deployment(api, _body(spec, flow))
    now = datetime.now(UTC)
    if spec.rule.enabled and spec.rule.timing and any(due < now + _SOON for due in next_due(spec.rule.timing, now, 1)):
        await make_runs(api, deployment_id, now)


async def _whole(step: Coroutine[Any, Any, None]) -> None:
    """Take a step to its end even if interrupted: Prefect deletes coming runs, which must then be made again."""
    task = asyncio.create_task(step)
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        await task
        raise


def _created(plan: Plan) -> list[DeploymentSpec]:
    return [*plan.added, *(change.spec for change in plan.changed if change.adopt)]


async def _pool(api: PrefectApi, pool: PoolChange) -> None:
    if pool.create:
        await create_pool(api, pool.name, pool.type)
        return
    for queue in pool.queues:
        await create_queue(api, pool.name, queue)


def _body(spec: DeploymentSpec, flow: str) -> dict[str, Any]:
    schedules = [] if spec.schedule is None else [{**spec.schedule.__dict__, "slug": SLUG}]
    return {"name": spec.name, "flow_id": flow, "labels": spec.labels, "schedules": schedules, **spec.fields()}


async def _change(api: PrefectApi, change: Change, flow: str | None) -> None:
    """Change one deployment. Every write makes Prefect delete the runs it had made for the future, so these are made
    again at once, from before the first write on: the scheduler alone would lose what is due in between."""
    found, now = change.deployment, datetime.now(UTC)
    since = max(now - _CLOCKS_APART, _steady_since(change)) if change.steady else now
    if change.adopt:
        assert flow is not None  # apply_plan registers the flows of what is adopted
        await create_deployment(api, _adopted(change, flow))
    else:
        fields = change.fields | ({"paused": False} if change.resume else {})
        if change.schedule and change.spec.schedule is None:
            await delete_schedule(api, found)
        elif change.schedule and change.spec.schedule is not None:
            schedule, active = change.spec.schedule.schedule, change.active
            if found.has_only_named_schedules:
                # In one transaction with the fields: a crash leaves both as they were, or none.
                fields |= {"schedules": [{"slug": SLUG, "schedule": schedule, "active": active}]}
            else:
                await put_schedule(api, found, schedule, active=active)
        if fields:
            await update_deployment(api, found.id, fields)
    if change.active and (change.resume or not found.paused):
        await make_runs(api, found.id, since)


def _steady_since(change: Change) -> datetime:
    """Since when the deployment and its schedule are as the plan found them; runs were made from then on."""
    times = [change.deployment.data["updated"]]
    if change.deployment.schedule is not None:
        times.append(change.deployment.schedule["updated"])
    return max(datetime.fromisoformat(time) for time in times)


def _adopted(change: Change, flow: str) -> dict[str, Any]:
    """Labels can only be set by creating anew over what is there; what an operator did to it is kept."""
    spec, found = change.spec, change.deployment
    if spec.schedule is not None:
        spec = replace(spec, schedule=replace(spec.schedule, active=change.active))
    body = _body(spec, flow)
    others = [
        {name: other[name] for name in ("schedule", "active", "parameters", "slug", "max_scheduled_runs")}
        for other in found.data["schedules"]
        if other["slug"] != SLUG
    ]
    return body | {"schedules": [*body["schedules"], *others], "paused": found.paused and not change.resume}


async def _drop_waiting(api: PrefectApi, change: Change) -> None:
    """Off is off, for what waits in a queue, was late or is to be tried again, too: their runs know the rule as it was.

    What has begun goes on.
    """
    state = skipped(Skip("disabled", "the rule or its project was switched off (enabled = false)"))
    due = {
        "state": {"type": {"any_": ["SCHEDULED"]}},
        "expected_start_time": {"before_": datetime.now(UTC).isoformat()},
    }
    for _ in range(_ROUNDS):
        runs = await find_runs(api, [change.deployment.id], due, limit=_MANY)
        for run in runs:
            await set_state(api, run.id, state, transition=Fence(run).of(state.type))
        if len(runs) < _MANY:
            return


async def _settle(api: PrefectApi, change: Change) -> None:
    """Renew runs made from the rule as it was: the scheduler computes runs in one transaction and inserts them in the
    next, and a change may fall between the two."""
    if not change.spec.rule.enabled:
        await _drop_waiting(api, change)
        if await coming_runs(api, change.deployment.id, datetime.now(UTC), _FEW):
            await update_deployment(api, change.deployment.id, {"version": change.spec.version})
    if not change.active:
        return
    for _ in range(_ROUNDS):
        now = datetime.now(UTC)
        # Where the times are the same, the old runs stand in the place of the new, from the first on.
        runs = await coming_runs(api, change.deployment.id, now, _MANY if change.moved else _FEW)
        if all(run["deployment_version"] == change.spec.version for run in runs):
            return
        await update_deployment(api, change.deployment.id, {"version": change.spec.version})
        await make_runs(api, change.deployment.id, now)
    raise PrefectError(
        f"the coming runs of {change.spec.flow_name}/{change.spec.name} still have the rule as it was",
        hint="Is another apply at work on the same server? Run `proactive apply` again.",
    )
