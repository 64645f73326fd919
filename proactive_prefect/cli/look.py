"""Commands that look at what is deployed: list, show, runs."""

from __future__ import annotations

import asyncio
import json as _json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import cyclopts

from .output import Json, as_json, line, note, table

if TYPE_CHECKING:
    from ..prefect_api.deployments import DeployedRule

T = TypeVar("T")


def list_(*, json: Json = False) -> None:
    """List the deployed rules: kind, when, next run, the run at work or the last outcome, paused.

    For example:

        proactive list
        proactive list --json
    """
    asyncio.run(_list(json))


async def _list(json: bool) -> None:
    from .context import connected, deployed_here, server_settings

    settings = server_settings()  # before Prefect is imported
    from ..daemon.words import ran
    from ..prefect_api.history import last_runs, runs_at_work
    from ..rules.phrases import when

    async with connected(settings) as api:
        found = await deployed_here(api, settings)
        ids = [one.deployment_id for one in found]
        last, active = await asyncio.gather(last_runs(api, ids), runs_at_work(api, ids))
    now = datetime.now(UTC)
    if json:
        as_json(
            [
                {
                    **_summary(one, now),
                    "last": run_json(last.get(one.deployment_id)),
                    "active": run_json(active.get(one.deployment_id)),
                }
                for one in found
            ]
        )
        return
    shown = {**last, **active}
    if not found:
        note("no rule is deployed: `proactive apply` deploys those of the rules file")
        return
    rows = [
        (one.rule.id, one.rule.kind, when(one.rule), _next(one, now), ran(shown.get(one.deployment_id), now))
        for one in found
    ]
    table(("rule", "kind", "when", "next", "last"), rows)


def show(rule: str, /, *, json: Json = False) -> None:
    """Show everything about one deployed rule: its policies, next fires, latest runs, its page in Prefect.

    For example:

        proactive show disk

    Parameters
    ----------
    rule:
        The rule's id.
    """
    asyncio.run(_show(rule, json))


async def _show(rule_id: str, json: bool) -> None:
    from .context import connected, deployed_rule, server_settings

    settings = server_settings()  # before Prefect is imported
    from ..daemon.upfile import read_up_file
    from ..daemon.words import ran
    from ..firing.foreseen import next_runs
    from ..gateway.secrets import webhook_secret_file
    from ..prefect_api.history import ENDED, LIVE, runs_of
    from ..rules.phrases import instant, timezone_of, when

    async with connected(settings) as api:
        found = await deployed_rule(api, settings, rule_id)
        past = await runs_of(api, [found.deployment_id], types=(*LIVE, *ENDED), limit=10)
    now = datetime.now(UTC)
    rule = found.rule
    fires = next_runs(rule, now, 5) if found.active else []
    declared = rule.model_dump(mode="json", exclude_defaults=True, exclude={"id", "kind"})
    declared["action"] = {"type": rule.action.type, **declared.get("action", {})}
    if json:
        as_json(
            {
                **_summary(found, now),
                "rule": rule.model_dump(mode="json"),
                "next": fires,
                "runs": [*map(run_json, past)],
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
            line(f"  {key:<10} {_json.dumps(value, ensure_ascii=False)}")
    if rule.kind == "webhook":
        if (up := read_up_file(settings.home)) and (hook := up["webhooks"].get(rule.id)):
            line(f"  url        {hook['url']}")
        if rule.secret is None:
            line(f"  secret     {webhook_secret_file(settings, rule.id)} (generated on first use)")
    for at in fires:
        line(f"  next       {instant(at, timezone_of(rule))}")
    for run in past:
        line(f"  run        {run['name']}: {ran(run, now)}{message(run)}")


def runs(
    rule: str | None = None,
    /,
    *,
    limit: Annotated[int, cyclopts.Parameter(name=("--limit", "-n"))] = 20,
    json: Json = False,
) -> None:
    """List the latest runs, of one rule or of all: state, start, duration, message.

    For example:

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
    from .context import connected, deployed_here, deployed_rule, server_settings

    settings = server_settings()  # before Prefect is imported
    from ..daemon.words import distance, read_instant
    from ..prefect_api.history import ENDED, LIVE, runs_of

    async with connected(settings) as api:
        found = [await deployed_rule(api, settings, rule_id)] if rule_id else await deployed_here(api, settings)
        ids = {one.deployment_id: one.rule.id for one in found}
        runs = await runs_of(api, list(ids), types=(*LIVE, *ENDED), limit=limit)
    if json:
        as_json([{"rule": ids[run["deployment_id"]], **(run_json(run) or {})} for run in runs])
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


def _status(found: DeployedRule) -> str:
    if found.paused:
        return "paused"
    return "active" if found.active else "off (not enabled)"


def _next(found: DeployedRule, now: datetime) -> str:
    from ..daemon.words import distance
    from ..firing.foreseen import next_runs

    if not found.active:
        return _status(found).split(" ")[0]
    due = next_runs(found.rule, now, 1)
    return distance(due[0], now) if due else "–"


def _summary(found: DeployedRule, now: datetime) -> dict[str, Any]:
    from ..firing.foreseen import next_runs
    from ..rules.phrases import when

    due = next_runs(found.rule, now, 1) if found.active else []
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


def run_json(run: dict[str, Any] | None) -> dict[str, Any] | None:
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


def message(run: dict[str, Any]) -> str:
    text = ((run.get("state") or {}).get("message") or "").split("\n")[0]
    return f": {text}" if text else ""
