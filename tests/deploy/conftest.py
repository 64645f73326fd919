"""Rules written in the test, and a connection that counts what is written through it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from proactive_prefect.deploy.apply import apply_plan
from proactive_prefect.deploy.compile import DeploymentSpec, Project, compile_rules
from proactive_prefect.deploy.plan import Plan, make_plan
from proactive_prefect.prefect_api import PrefectApi
from proactive_prefect.prefect_api.automations import read_automations
from proactive_prefect.prefect_api.client import connect
from proactive_prefect.prefect_api.deployments import Deployment, read_deployments
from proactive_prefect.rules.models import Rulebook
from tests.conftest import Server

ROOT = Path(__file__).parents[2]
READS = ("/filter", "/paginate", "/count", "/get_scheduled_flow_runs")
ACTION = {"type": "python", "call": "flows.actions:look"}


def rulebook(*rules: dict[str, Any], enabled: bool = True, **table: Any) -> Rulebook:
    """A rulebook from rules as a file says them; an action is filled in."""
    return Rulebook.model_validate(
        {"proactive": {"enabled": enabled, **table}, "rules": [{"action": ACTION, **rule} for rule in rules]}
    )


def heartbeat(rule_id: str, every: str = "1h", **keys: Any) -> dict[str, Any]:
    return {"kind": "heartbeat", "id": rule_id, "every": every, **keys}


def specs_of(*rules: dict[str, Any], **table: Any) -> tuple[DeploymentSpec, ...]:
    """The rules compiled, as those of the project "p"."""
    return compile_rules(rulebook(*rules, **table), Project("p", ROOT, "pool"))


@dataclass
class Workshop:
    """A project on the test's server. `writes` and `reads` list every request made through `api`."""

    api: PrefectApi
    project: Project
    writes: list[str] = field(default_factory=list)
    reads: list[str] = field(default_factory=list)

    def specs(self, *rules: dict[str, Any], **table: Any) -> tuple[DeploymentSpec, ...]:
        return compile_rules(rulebook(*rules, **table), self.project)

    async def plan(self, *rules: dict[str, Any], **table: Any) -> Plan:
        return await make_plan(self.api, self.specs(*rules, **table), self.project)

    async def apply(self, *rules: dict[str, Any], **table: Any) -> Plan:
        plan = await self.plan(*rules, **table)
        await apply_plan(self.api, plan)
        return plan

    async def deployed(self, rule_id: str) -> Deployment:
        found = await self.deployments()
        return next(one for one in found if one.name == rule_id)

    async def deployments(self) -> list[Deployment]:
        """All of this project."""
        return [found for found in await read_deployments(self.api) if found.project == self.project.name]


@pytest.fixture
async def workshop(prefect_server: Server, request: pytest.FixtureRequest) -> AsyncIterator[Workshop]:
    """A project of the test's own, in a pool of its own; what it made is gone afterwards."""
    name = request.node.name.replace("[", "-").replace("]", "")[-60:].strip("_-")
    async with connect() as api:
        shop = Workshop(api, Project(name, ROOT, f"pool-{name}"))

        async def note(request: Any) -> None:
            read = request.method == "GET" or request.url.path.endswith(READS)
            (shop.reads if read else shop.writes).append(f"{request.method} {request.url.path}")

        api.client._client.event_hooks["request"].append(note)
        yield shop
        for found in await shop.deployments():
            await api.delete(f"/deployments/{found.id}")
        for automation in await read_automations(api, name):
            await api.delete(f"/automations/{automation['id']}")
