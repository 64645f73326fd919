"""Deployments as Prefect keeps them: read all that may be rules, create, change in place, delete.

A rule's deployment has the rule's id as its name, the rule's kind as its flow, the rule's snapshot in its parameters,
one schedule with the slug "rule", and labels that say which project made it. Prefect sets labels only when a
deployment is created: a PATCH cannot change them.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from pydantic import ValidationError

from ..rules.models import KINDS, Kind, Rule, from_snapshot
from .client import PrefectApi

PROJECT_LABEL = "proactive.project"
RULE_LABEL = "proactive.rule"
KIND_LABEL = "proactive.kind"
SLUG = "rule"
TAG = "proactive"
_PAGE = 200  # the most that Prefect gives at once, by default


@dataclass(frozen=True)
class DeployedRule:
    """A rule as it is deployed: what its next run will do."""

    deployment_id: str
    rule: Rule
    project: str | None
    paused: bool
    """An operator paused the deployment, or its schedule, in Prefect."""
    active: bool
    """Its occurrences run: it is enabled and not paused."""
    work_pool: str | None
    """Where its runs go; None if the pool was deleted."""


@dataclass(frozen=True)
class Deployment:
    """A deployment on the server. `data` is Prefect's JSON of it."""

    id: str
    flow_name: str
    data: dict[str, Any]

    @property
    def name(self) -> str:
        return str(self.data["name"])

    @property
    def project(self) -> str | None:
        """The project that made it, or None: made by something else."""
        found = (self.data["labels"] or {}).get(PROJECT_LABEL)
        return None if found is None else str(found)

    @property
    def paused(self) -> bool:
        return bool(self.data["paused"])

    @property
    def schedule(self) -> dict[str, Any] | None:
        """The rule's schedule: `id`, `schedule`, `active`, `updated`; None where there is none."""
        return next((found for found in self.data["schedules"] if found["slug"] == SLUG), None)

    @property
    def has_only_named_schedules(self) -> bool:
        """Whether a PATCH of the deployment may carry schedules: it changes those it names, and leaves the others.

        Prefect replaces all schedules by those of the PATCH as soon as one of them has no slug, as those that are made
        in its UI.
        """
        schedules = self.data["schedules"]
        return bool(schedules) and all(found["slug"] is not None for found in schedules)

    @property
    def snapshot(self) -> dict[str, Any] | None:
        """The rule as it was last applied, as JSON; None if this is not a rule's deployment."""
        try:
            found = json.loads(self.data["parameters"]["rule"])
        except (KeyError, TypeError, ValueError):
            return None
        return found if isinstance(found, dict) else None

    @property
    def is_a_rule(self) -> bool:
        """Made from a rule by this package, also where labels were lost: by `prefect deploy` of a rendered file."""
        found = self.snapshot or {}
        return (
            TAG in self.data["tags"] and found.get("id") == self.name and found.get("kind") == self.flow_name in KINDS
        )

    def fields(self) -> dict[str, Any]:
        """What a DeploymentSpec says too, in its form."""
        data = self.data
        limit = data.get("global_concurrency_limit")
        options = data.get("concurrency_options")
        return {
            "version": data["version"],
            "description": data["description"],
            "entrypoint": data["entrypoint"],
            "pull_steps": data["pull_steps"],
            "parameters": data["parameters"],
            "tags": data["tags"],
            "work_pool_name": data["work_pool_name"],
            "work_queue_name": data["work_queue_name"],
            "job_variables": data["job_variables"],
            "concurrency_limit": limit["limit"] if limit else None,
            "concurrency_options": {"collision_strategy": options["collision_strategy"]} if options and limit else None,
            "enforce_parameter_schema": data["enforce_parameter_schema"],
            "parameter_openapi_schema": data["parameter_openapi_schema"],
        }


async def read_deployments(api: PrefectApi, kinds: Iterable[Kind] = KINDS) -> list[Deployment]:
    """Every deployment of the flows `kinds`, whoever made it, by name."""
    flows = await api.post("/flows/filter", {"flows": {"name": {"any_": list(kinds)}}})
    names = {flow["id"]: flow["name"] for flow in flows}
    if not names:
        return []
    found: list[Deployment] = []
    while True:
        page = await api.post(
            "/deployments/filter",
            {"flows": {"id": {"any_": list(names)}}, "sort": "NAME_ASC", "limit": _PAGE, "offset": len(found)},
        )
        found += [Deployment(data["id"], names[data["flow_id"]], data) for data in page]
        if len(page) < _PAGE:
            return found


async def deployments_mark(api: PrefectApi, kinds: Iterable[Kind] = KINDS) -> tuple[int, str]:
    """Another one whenever a deployment of these kinds was made, changed, paused or deleted: cheap to ask for."""
    flows = {"flows": {"name": {"any_": list(kinds)}}}
    count = await api.post("/deployments/count", flows)
    latest = await api.post("/deployments/filter", {**flows, "sort": "UPDATED_DESC", "limit": 1})
    return int(count), latest[0]["updated"] if latest else ""


async def deployed_rules(
    api: PrefectApi, *, kinds: Iterable[Kind] = KINDS, project: str | None = None
) -> list[DeployedRule]:
    """Every deployed rule, of all projects or of one; one whose snapshot this version cannot read is left out."""
    rules: list[DeployedRule] = []
    for found in await read_deployments(api, kinds):
        if not found.is_a_rule or (project is not None and found.project != project):
            continue
        try:
            rule = from_snapshot(found.data["parameters"]["rule"])
        except ValidationError:
            continue
        paused = found.paused or (rule.enabled and found.schedule is not None and not found.schedule["active"])
        rules.append(
            DeployedRule(
                found.id, rule, found.project, paused, rule.enabled and not paused, found.data["work_pool_name"]
            )
        )
    return rules


async def flow_id(api: PrefectApi, name: str) -> str:
    """The id of the flow of that name, which is registered if it is not there yet."""
    return str((await api.post("/flows/", {"name": name}))["id"])


async def create_deployment(api: PrefectApi, body: dict[str, Any]) -> str:
    """Create the deployment of (`flow_id`, `name`), or put it over the one that is there; its id.

    Over one that is there, its schedules get new ids and its coming runs are made anew.
    """
    return str((await api.post("/deployments/", body))["id"])


async def update_deployment(api: PrefectApi, deployment_id: str, fields: dict[str, Any]) -> None:
    """Change these fields only; `schedules` as `has_only_named_schedules` allows.

    Prefect then deletes the runs that it had made for the future: `make_runs` again.
    """
    await api.patch(f"/deployments/{deployment_id}", fields)


async def put_schedule(api: PrefectApi, deployment: Deployment, schedule: dict[str, Any], *, active: bool) -> None:
    """Let the rule's schedule be `schedule`; one that is there keeps its id. Coming runs are deleted: `make_runs`."""
    path = f"/deployments/{deployment.id}/schedules"
    if deployment.schedule is None:
        await api.post(path, [{"slug": SLUG, "schedule": schedule, "active": active}])
    else:
        await api.patch(f"{path}/{deployment.schedule['id']}", {"schedule": schedule, "active": active})


async def delete_schedule(api: PrefectApi, deployment: Deployment) -> None:
    """Delete the rule's schedule, and its coming runs."""
    if deployment.schedule is not None:
        await api.delete(f"/deployments/{deployment.id}/schedules/{deployment.schedule['id']}")


async def delete_deployment(api: PrefectApi, deployment_id: str) -> None:
    """Delete a deployment and its coming runs; its past runs stay."""
    await api.delete(f"/deployments/{deployment_id}")


async def make_runs(api: PrefectApi, deployment_id: str, since: datetime) -> None:
    """Let Prefect make the scheduled runs from `since` on now, and not on its scheduler's next pass (up to 60 s).

    The runs have the keys that the scheduler gives them, so none that is there is made twice. A little more than the
    scheduler's own hour is asked for, so that what it had already computed before a change finds all its keys taken.
    """
    await api.post(f"/deployments/{deployment_id}/schedule", {"start_time": since.isoformat(), "min_time": 3900})


async def coming_runs(api: PrefectApi, deployment_id: str, after: datetime, limit: int = _PAGE) -> list[dict[str, Any]]:
    """The first `limit` runs (at most 200) that Prefect's scheduler has made for the time after `after`."""
    found: list[dict[str, Any]] = await api.post(
        "/flow_runs/filter",
        {
            "deployments": {"id": {"any_": [deployment_id]}},
            "flow_runs": {
                "state": {"type": {"any_": ["SCHEDULED"]}},
                "next_scheduled_start_time": {"after_": after.isoformat()},
            },
            "sort": "EXPECTED_START_TIME_ASC",
            "limit": limit,
        },
    )
    return [run for run in found if run["auto_scheduled"]]
