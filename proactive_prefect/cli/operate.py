"""Commands that act on what is deployed: trigger, pause, resume, cancel."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

import cyclopts

from ..rules.state_names import MISSED, SKIPPED
from .look import message, run_json
from .output import Json, as_json, line, note


def trigger(
    rule: str,
    /,
    *,
    payload: str | None = None,
    wait: Annotated[bool, cyclopts.Parameter(negative="")] = False,
    json: Json = False,
) -> int:
    """Run a rule now, as a run of its own.

    With --wait the exit code is 1 if the run fails.

    For example:

        proactive trigger disk --wait
        proactive trigger deploy-hook --payload '{"ref": "main"}'

    Parameters
    ----------
    rule:
        The rule's id.
    payload:
        Text (JSON or not) that the action gets as its payload.
    wait:
        Follow the run to its end.
    """
    return asyncio.run(_trigger(rule, payload, wait, json))


async def _trigger(rule_id: str, payload: str | None, wait: bool, json: bool) -> int:
    from .context import connected, deployed_rule, server_settings

    settings = server_settings()  # before Prefect is imported
    from uuid import uuid4

    from ..prefect_api.links import run_url
    from ..prefect_api.runs import create_run

    async with connected(settings) as api:
        found = await deployed_rule(api, settings, rule_id)
        made = await create_run(api, found.deployment_id, idempotency_key=f"trigger {uuid4()}", payload=payload)
        url = run_url(str(made.id))
        if not json:
            line(f"{made.name}: {url or made.id}")
        run = await _follow(api, str(made.id), quiet=json) if wait else None
    if json:
        as_json({"run_id": made.id, "name": made.name, "url": url, **({"end": run_json(run)} if run else {})})
    if run is None or run["state_type"] == "COMPLETED" or run["state_name"] == SKIPPED:
        return 0
    return 1


async def _follow(api: Any, run_id: str, *, quiet: bool) -> dict[str, Any]:
    seen = None
    while True:
        run: dict[str, Any] = await api.get(f"/flow_runs/{run_id}")
        if run["state_name"] != seen and not quiet:
            line(f"  {run['state_name']}{message(run)}")
        seen = run["state_name"]
        if run["state_type"] in ("COMPLETED", "FAILED", "CRASHED", "CANCELLED") or seen == MISSED:
            return run
        await asyncio.sleep(0.5)


def pause(rule: str, /) -> None:
    """Pause a rule, as the switch in Prefect's UI does: no scheduled run until it is resumed.

    For example:

        proactive pause disk

    Parameters
    ----------
    rule:
        The rule's id.
    """
    asyncio.run(_set_paused(rule, paused=True))


def resume(rule: str, /) -> None:
    """Resume a paused rule.

    For example:

        proactive resume disk

    Parameters
    ----------
    rule:
        The rule's id.
    """
    asyncio.run(_set_paused(rule, paused=False))


async def _set_paused(rule_id: str, *, paused: bool) -> None:
    from .context import connected, deployed_rule, server_settings

    settings = server_settings()  # before Prefect is imported
    from ..prefect_api.pausing import pause_rule, resume_rule

    async with connected(settings) as api:
        found = await deployed_rule(api, settings, rule_id)
        if paused:
            await pause_rule(api, found.deployment_id)
        else:
            await resume_rule(api, found.deployment_id, enabled=found.rule.enabled)
    line(f"{rule_id} is {'paused' if paused else 'resumed'}")
    if not paused and not found.rule.enabled:
        note("note: the rule is not enabled in the rules file, so it does not fire")


def cancel(run: str, /) -> None:
    """Cancel a run that is waiting or at work.

    For example:

        proactive cancel lively-otter
        proactive cancel 0199c2f0

    Parameters
    ----------
    run:
        The run's id or name, or the beginning of one.
    """
    asyncio.run(_cancel(run))


async def _cancel(text: str) -> None:
    from .context import connected, deployed_here, server_settings

    settings = server_settings()  # before Prefect is imported
    from ..errors import InputError
    from ..prefect_api.history import open_runs
    from ..prefect_api.runs import cancel_run

    async with connected(settings) as api:
        ids = [one.deployment_id for one in await deployed_here(api, settings)]
        found = await open_runs(api, ids, text) if text else []
        exact = [run for run in found if text in (run["id"], run["name"])]
        if len(exact or found) != 1:
            raise InputError(
                f"{len(found) or 'no'} runs that wait or work are named {text!r}",
                hint=", ".join(run["name"] for run in found[:10]) or "`proactive runs` lists them.",
            )
        run = (exact or found)[0]
        ended = not await cancel_run(api, run["id"], reason="Cancelled by `proactive cancel`.")
    line(f"{run['name']} had ended already" if ended else f"{run['name']} is cancelled")
