"""Commands on what is deployed: list, show, runs, trigger, pause, resume, cancel."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import cyclopts

from .output import Json, as_json, line, note, table

if TYPE_CHECKING:
    from ..prefect_api.deployments import DeployedRule

T = TypeVar("T")


def list_(*, json: Json = False) -> None:
    """List the deployed rules: kind, when, next fire, last outcome, paused.

    Examples:

        proactive list
        proactive list --json
    """
    asyncio.run(_list(json))


async def _list(json: bool) -> None:
    from ..daemon.words import ran, when
    from ..prefect_api.history import last_runs
    from .context import connected, deployed_here

    settings = _settings()
    async with connected(settings) as api:
        found = await deployed_here(api, settings)
        last = await last_runs(api, [one.deployment_id for one in found])
    now = datetime.now(UTC)
    if json:
        as_json([{**_summary(one, now), "last": _run_json(last.get(one.deployment_id))} for one in found])
        return
    if not found:
        note("no rule is deployed: `proactive apply` deploys those of the rules file")
        return
    rows = [
        (one.rule.id, one.rule.kind, when(one.rule), _next(one, now), ran(last.get(one.deployment_id), now))
        for one in found
    ]
    table(("rule", "kind", "when", "next", "last"), rows)


def show(rule: str, /, *, json: Json = False) -> None:
    """Show everything about one deployed rule: its policies, next fires, latest runs, its page in Prefect.

    Example:

        proactive show disk

    Parameters
    ----------
    rule:
        The rule's id.
    """
    asyncio.run(_show(rule, json))


async def _show(rule_id: str, json: bool) -> None:
    from ..daemon.words import instant, ran, timezone_of, when
    from ..prefect_api.history import runs_of
    from ..rules.timing import next_due
    from .context import connected, deployed_rule

    settings = _settings()
    async with connected(settings) as api:
        found = await deployed_rule(api, settings, rule_id)
        runs = await runs_of(api, [found.deployment_id], limit=10)
    now = datetime.now(UTC)
    rule = found.rule
    fires = next_due(rule.timing, now, 5) if rule.timing and found.active else []
    past = [run for run in runs if run["state_type"] != "SCHEDULED"]
    declared = rule.model_dump(mode="json", exclude_defaults=True, exclude={"id", "kind"})
    if json:
        as_json(
            {
                **_summary(found, now),
                "rule": rule.model_dump(mode="json"),
                "next": fires,
                "runs": [*map(_run_json, past)],
            }
        )
        return
    line(f"{rule.kind} {rule.id}" + (f": {rule.description}" if rule.description else ""))
    line(f"  when       {when(rule)}")
    line(f"  status     {_status(found)}")
    line(f"  project    {found.project or '–'}")
    line(f"  deployment {found.deployment_id}")
    for key, value in declared.items():
        if key not in ("description", "enabled"):
            line(f"  {key:<10} {value}")
    for at in fires:
        line(f"  next       {instant(at, timezone_of(rule))}")
    for run in past:
        line(f"  run        {run['name']}: {ran(run, now)}{_message(run)}")


def runs(
    rule: str | None = None,
    /,
    *,
    limit: Annotated[int, cyclopts.Parameter(name=("--limit", "-n"))] = 20,
    json: Json = False,
) -> None:
    """List the latest runs, of one rule or of all: state, start, duration, message.

    Examples:

        proactive runs
        proactive runs disk -n 50

    Parameters
    ----------
    rule:
        The rule's id. Default: all rules.
    limit:
        How many runs, at most 200.
    """
    asyncio.run(_runs(rule, limit, json))


async def _runs(rule_id: str | None, limit: int, json: bool) -> None:
    from ..daemon.words import distance, read_instant
    from ..prefect_api.history import runs_of
    from .context import connected, deployed_here, deployed_rule

    settings = _settings()
    async with connected(settings) as api:
        found = [await deployed_rule(api, settings, rule_id)] if rule_id else await deployed_here(api, settings)
        types = ("PENDING", "RUNNING", "CANCELLING", "PAUSED", "COMPLETED", "FAILED", "CRASHED", "CANCELLED")
        ids = {one.deployment_id: one.rule.id for one in found}
        runs = await runs_of(api, list(ids), types=types, limit=limit)
    if json:
        as_json([{"rule": ids[run["deployment_id"]], **(_run_json(run) or {})} for run in runs])
        return
    now = datetime.now(UTC)
    rows = []
    for run in runs:
        started = read_instant(run.get("start_time"))
        rows.append(
            (
                run["name"],
                ids[run["deployment_id"]],
                run["state_name"],
                distance(started, now) if started else "–",
                _duration(run),
                ((run.get("state") or {}).get("message") or "").split("\n")[0],
            )
        )
    table(("run", "rule", "state", "started", "took", "message"), rows)


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

    Examples:

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
    from uuid import uuid4

    from ..prefect_api.links import run_url
    from ..prefect_api.runs import create_run
    from .context import connected, deployed_rule

    settings = _settings()
    async with connected(settings) as api:
        found = await deployed_rule(api, settings, rule_id)
        made = await create_run(api, found.deployment_id, idempotency_key=f"trigger {uuid4()}", payload=payload)
        url = run_url(str(made.id))
        if not json:
            line(f"{made.name}: {url or made.id}")
        run = await _follow(api, str(made.id), quiet=json) if wait else None
    if json:
        as_json({"run_id": made.id, "name": made.name, "url": url, **({"end": _run_json(run)} if run else {})})
    if run is None or run["state_type"] == "COMPLETED" or run["state_name"] == "Skipped":
        return 0
    return 1


async def _follow(api: Any, run_id: str, *, quiet: bool) -> dict[str, Any]:
    seen = None
    while True:
        run: dict[str, Any] = await api.get(f"/flow_runs/{run_id}")
        if run["state_name"] != seen and not quiet:
            line(f"  {run['state_name']}{_message(run)}")
        seen = run["state_name"]
        if run["state_type"] in ("COMPLETED", "FAILED", "CRASHED", "CANCELLED") or seen == "Missed":
            return run
        await asyncio.sleep(0.5)


def pause(rule: str, /) -> None:
    """Pause a rule, as the switch in Prefect's UI does: no scheduled run until it is resumed.

    Example:

        proactive pause disk

    Parameters
    ----------
    rule:
        The rule's id.
    """
    asyncio.run(_set_paused(rule, paused=True))


def resume(rule: str, /) -> None:
    """Resume a paused rule.

    Example:

        proactive resume disk

    Parameters
    ----------
    rule:
        The rule's id.
    """
    asyncio.run(_set_paused(rule, paused=False))


async def _set_paused(rule_id: str, *, paused: bool) -> None:
    from ..prefect_api.pausing import pause_rule, resume_rule
    from .context import connected, deployed_rule

    settings = _settings()
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

    Examples:

        proactive cancel lively-otter
        proactive cancel 0199c2f0

    Parameters
    ----------
    run:
        The run's id or name, or the beginning of one.
    """
    asyncio.run(_cancel(run))


async def _cancel(text: str) -> None:
    from ..errors import InputError
    from ..prefect_api.history import runs_of
    from ..prefect_api.runs import cancel_run
    from .context import connected, deployed_here

    settings = _settings()
    async with connected(settings) as api:
        ids = [one.deployment_id for one in await deployed_here(api, settings)]
        live, due = await asyncio.gather(
            runs_of(api, ids, types=("PENDING", "RUNNING", "CANCELLING", "PAUSED")),
            runs_of(api, ids, types=("SCHEDULED",)),
        )
        found = [run for run in (*live, *due) if text and (run["id"].startswith(text) or run["name"].startswith(text))]
        exact = [run for run in found if text in (run["id"], run["name"])]
        if len(exact or found) != 1:
            raise InputError(
                f"{len(found) or 'no'} runs that wait or work are named {text!r}",
                hint=", ".join(run["name"] for run in found[:10]) or "`proactive runs` lists them.",
            )
        run = (exact or found)[0]
        ended = not await cancel_run(api, run["id"], reason="Cancelled by `proactive cancel`.")
    line(f"{run['name']} had ended already" if ended else f"{run['name']} is cancelled")


# -- shared ---------------------------------------------------------------------------------------------------------


def _settings() -> Any:
    from ..settings import Settings

    return Settings()


def _status(found: DeployedRule) -> str:
    if found.paused:
        return "paused"
    return "active" if found.active else "off (not enabled)"


def _next(found: DeployedRule, now: datetime) -> str:
    from ..daemon.words import distance
    from ..rules.timing import next_due

    if not found.active:
        return _status(found).split(" ")[0]
    due = next_due(found.rule.timing, now, 1) if found.rule.timing else []
    return distance(due[0], now) if due else "–"


def _summary(found: DeployedRule, now: datetime) -> dict[str, Any]:
    from ..daemon.words import when
    from ..rules.timing import next_due

    due = next_due(found.rule.timing, now, 1) if found.rule.timing and found.active else []
    return {
        "id": found.rule.id,
        "kind": found.rule.kind,
        "when": when(found.rule),
        "enabled": found.rule.enabled,
        "paused": found.paused,
        "next_fire": due[0] if due else None,
        "deployment_id": found.deployment_id,
        "project": found.project,
    }


def _run_json(run: dict[str, Any] | None) -> dict[str, Any] | None:
    if run is None:
        return None
    from ..prefect_api.links import run_url

    return {
        "run_id": run["id"],
        "name": run["name"],
        "state": run["state_name"],
        "state_type": run["state_type"],
        "message": (run.get("state") or {}).get("message"),
        "expected_start": run.get("expected_start_time"),
        "start": run.get("start_time"),
        "end": run.get("end_time"),
        "seconds": run.get("total_run_time"),
        "url": run_url(run["id"]),
    }


def _duration(run: dict[str, Any]) -> str:
    from datetime import timedelta

    from ..daemon.words import span

    return span(timedelta(seconds=run.get("estimated_run_time") or 0)) if run.get("start_time") else "–"


def _message(run: dict[str, Any]) -> str:
    text = ((run.get("state") or {}).get("message") or "").split("\n")[0]
    return f": {text}" if text else ""
