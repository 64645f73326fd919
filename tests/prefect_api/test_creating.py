"""Runs that are asked for at once."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator

import pytest

from proactive_prefect.prefect_api import PrefectApi, Refused, connect
from proactive_prefect.prefect_api.deployments import deployed_rules
from proactive_prefect.prefect_api.runs import CAUSE_LABEL, create_run
from tests.conftest import Server
from tests.gateway.conftest import apply, forget, fresh


@pytest.fixture
async def hook(prefect_server: Server) -> AsyncIterator[str]:
    """The deployment of a rule."""
    await apply("creating", {"id": "together"})
    async with connect() as api:
        yield next(one.deployment_id for one in await deployed_rules(api) if one.rule.id == "together")
    await forget("creating")


async def test_what_is_asked_for_at_once_is_created_in_few_calls(hook: str) -> None:
    """Each gets its own run, with its payload; with the same key again it is the same run."""
    asked: list[str] = []
    async with connect() as api:

        async def count(request: object) -> None:
            asked.append(str(request))

        api.client._client.event_hooks["request"].append(count)
        keys = [fresh("burst") for _ in range(60)]

        async def create(key: str) -> tuple[str, str, str]:
            made = await create_run(api, hook, idempotency_key=key, payload=json.dumps(key))
            return str(made.id), json.loads(made.parameters["payload"]), str(made.labels[CAUSE_LABEL])

        made = await asyncio.gather(*map(create, keys))
        assert [(payload, cause) for _, payload, cause in made] == [(key, "manual") for key in keys]
        assert len({run_id for run_id, _, _ in made}) == 60
        assert await asyncio.gather(*map(create, keys)) == made
    # One that came first and one for the rest, twice; more only where the database was locked.
    creations = {line for line in asked if "create_flow_run" in line}
    assert len(creations) <= 2
    assert len([line for line in asked if "create_flow_run" in line]) < 20


async def test_one_that_prefect_refuses_does_not_keep_the_others_from_their_runs(hook: str) -> None:
    """Each is told its own reason: a payload that is too large, no deployment."""
    async with connect() as api:

        async def create(api: PrefectApi, deployment: str, payload: str) -> str:
            return str((await create_run(api, deployment, idempotency_key=fresh("one"), payload=payload)).id)

        sizes = (1, 600_000, 1)
        told = await asyncio.gather(*(create(api, hook, "x" * size) for size in sizes), return_exceptions=True)
        assert [isinstance(one, Refused) for one in told] == [False, True, False]
        nowhere = "0c0ffee0-0000-4000-8000-000000000000"
        gone = await asyncio.gather(*(create(api, nowhere, "{}") for _ in range(3)), return_exceptions=True)
        assert [one.status for one in gone if isinstance(one, Refused)] == [404] * 3
