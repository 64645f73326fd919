"""The action `deployment`: a run of another Prefect deployment, followed to its end."""

from __future__ import annotations

import asyncio
from typing import Any
from urllib.parse import quote

import anyio
from prefect.client.schemas.objects import FlowRun

from ...errors import ActionError
from ...prefect_api import PrefectApi, Refused, connect
from ...prefect_api.runs import cancel_run, create_run, read_run
from ...rules.actions import DeploymentAction
from ..masking import MaskedLogger, Masker
from ..references import resolve
from ..results import Context, HeartbeatResult

_FIRST_LOOK = 0.5  # seconds between two looks at the run; longer each time, up to
_LAST_LOOK = 3.0
_CANCEL_WITHIN = 10.0


async def run_deployment(
    action: DeploymentAction, ctx: Context, masker: Masker, logger: MaskedLogger
) -> HeartbeatResult:
    """Create a run of the deployment, wait for its end, and be quiet about it: its own run tells the rest.

    One run for each attempt: asked twice for one attempt (after a crash), it follows the run that is there. When this
    is cancelled, so is that run. `parameters` come from the operator's file and are given to Prefect as they are, so
    that Prefect's own forms in them (`__prefect_kind`, `$ref`) work. Note that Prefect stores parameters: a secret
    belongs into a block that the other flow loads. Raises ActionError where there is no such deployment, where
    Prefect refuses the parameters, and where the run ends as anything but completed, with its state and message.
    """
    async with connect() as api:
        parameters = await resolve(action.parameters, masker=masker, where="action.parameters", api=api)
        deployment_id = await _find(api, action.name)
        run: FlowRun | None = None

        async def create() -> FlowRun:
            return await create_run(
                api,
                deployment_id,
                idempotency_key=f"proactive {ctx.run_id} {ctx.attempt}",
                parameters=parameters,
                labels={"proactive.parent_run": ctx.run_id, "proactive.parent_rule": ctx.rule_id},
            )

        try:
            run = await create()
            logger.info("Follows the run %s (%s) of %s", run.name, run.id, action.name)
            ended = await _follow(api, run)
        except asyncio.CancelledError:
            with anyio.move_on_after(_CANCEL_WITHIN, shield=True):
                # Cancelled while it was being created, its id is not known: the same key gives it.
                run = run or await create()
                await cancel_run(api, run.id, reason=f"The run of rule {ctx.rule_id} that follows this one was ended.")
            raise
    state = ended.state
    if state is None or not state.is_completed():
        name, message = (state.name, state.message) if state else (None, None)
        said = f": {message}" if message else ""
        raise ActionError(f"the run {ended.name} ({ended.id}) of {action.name} ended as {name}{said}")
    return HeartbeatResult(False, None, {"flow_run_id": str(ended.id), "flow_run_name": ended.name})


async def _find(api: PrefectApi, name: str) -> str:
    try:
        path = "/".join(quote(part, safe="") for part in name.split("/"))
        found: dict[str, Any] = await api.get(f"/deployments/name/{path}")
    except Refused as refused:
        if refused.status != 404:
            raise
        raise ActionError(
            f"action.name: there is no deployment {name!r}", hint="`prefect deployment ls` lists those that are there."
        ) from None
    return str(found["id"])


async def _follow(api: PrefectApi, run: FlowRun) -> FlowRun:
    pause = _FIRST_LOOK
    while run.state is None or not run.state.is_final():
        await asyncio.sleep(pause)
        pause = min(pause * 1.3, _LAST_LOOK)
        run = await read_run(api, run.id)
    return run
