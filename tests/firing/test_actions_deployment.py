"""The action `deployment`: a run of another deployment on a real server; the test moves that run as a worker would."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any
from uuid import uuid4

import pytest
from prefect.client.schemas.objects import FlowRun, State
from prefect.states import Completed, Crashed, Failed, Pending, Running
from prefect.variables import Variable

from proactive_prefect.errors import ActionError
from proactive_prefect.prefect_api import PrefectApi, connect
from proactive_prefect.prefect_api.runs import find_runs, read_run, set_state

from ..conftest import Server
from ..support import wait_until
from .acting import run

SCHEMA = {"type": "object", "properties": {"x": {"type": "integer"}, "y": {"type": "string"}}, "required": ["x"]}


class Target:
    """A deployment of some other flow, and its runs."""

    def __init__(self, api: PrefectApi, deployment_id: str, name: str) -> None:
        self.api = api
        self.deployment_id = deployment_id
        self.name = name

    def action(self, **parameters: Any) -> dict[str, Any]:
        return {"type": "deployment", "name": self.name, "parameters": {"x": 1, **parameters}}

    async def run(self) -> FlowRun:
        """Its one run, once it is there."""

        async def found() -> list[FlowRun]:
            return await find_runs(self.api, [self.deployment_id])

        runs: list[FlowRun] = await wait_until(found, what="a run of the other deployment")
        assert len(runs) == 1
        return runs[0]

    async def ends(self, run: FlowRun, state: State[Any]) -> None:
        """Move the run as a worker would."""
        for step in (Pending(), Running(), state):
            await set_state(self.api, run.id, step)


@pytest.fixture
async def target(prefect_server: Server) -> AsyncIterator[Target]:
    """A deployment that no worker runs."""
    async with connect() as api:
        name = f"t{uuid4().hex[:8]}"
        flow_id = await api.client.create_flow_from_name(f"{name} flow")
        deployment_id = await api.client.create_deployment(
            flow_id, f"{name} one", parameter_openapi_schema=SCHEMA, enforce_parameter_schema=True
        )
        yield Target(api, str(deployment_id), f"{name} flow/{name} one")


async def test_a_deployment_is_run_and_followed_to_its_end(target: Target, monkeypatch: pytest.MonkeyPatch) -> None:
    """The run gets the parameters, with references filled in; when it completes, the action is quiet about it."""
    monkeypatch.setenv("TOKEN", "canary-token")
    task = asyncio.create_task(run(target.action(y="${env:TOKEN}"), run_id="parent"))
    child = await target.run()
    assert child.parameters == {"x": 1, "y": "canary-token"}
    assert child.labels["proactive.parent_run"] == "parent"
    assert not task.done()
    await target.ends(child, Completed())
    result = await task
    assert not result.should_notify
    assert result.metadata == {"flow_run_id": str(child.id), "flow_run_name": child.name}


@pytest.mark.parametrize(
    ("state", "told"),
    [(Failed(message="no\nluck"), "ended as Failed: no luck"), (Crashed(message="gone"), "ended as Crashed: gone")],
)
async def test_a_run_that_fails_fails_the_action(target: Target, state: State[Any], told: str) -> None:
    """The state of the other run and its message are in the error."""
    task = asyncio.create_task(run(target.action()))
    child = await target.run()
    await target.ends(child, state)
    with pytest.raises(ActionError) as error:
        await task
    assert error.value.message == f"the run {child.name} ({child.id}) of {target.name} {told}"


async def test_a_repeat_of_an_attempt_follows_the_run_that_is_there(target: Target) -> None:
    """Asked twice for one attempt, after a crash, there is one run; the next attempt has its own."""
    twins = [asyncio.create_task(run(target.action(), run_id="same")) for _ in range(2)]
    child = await target.run()
    await target.ends(child, Failed())
    await asyncio.gather(*twins, return_exceptions=True)
    assert len(await find_runs(target.api, [target.deployment_id])) == 1
    later = asyncio.create_task(run(target.action(), run_id="same", attempt=2))

    async def both() -> list[FlowRun]:
        runs = await find_runs(target.api, [target.deployment_id])
        return runs if len(runs) == 2 else []

    runs: list[FlowRun] = await wait_until(both, what="a run for the second attempt")
    assert child.id in {run.id for run in runs}
    later.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await later


@pytest.mark.parametrize(("begun", "ends_as"), [(False, "Cancelled"), (True, "Cancelling")])
async def test_a_cancelled_action_cancels_the_run(target: Target, begun: bool, ends_as: str) -> None:
    """A run that waits is cancelled at once; one at work is asked to stop, and its worker ends it."""
    task = asyncio.create_task(run(target.action()))
    child = await target.run()
    if begun:
        await set_state(target.api, child.id, Pending())
        await set_state(target.api, child.id, Running())
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    state = (await read_run(target.api, child.id)).state
    assert state is not None
    assert state.name == ends_as
    assert "rule r" in (state.message or "")


async def test_an_unknown_deployment_is_named(prefect_server: Server) -> None:
    """A misspelt deployment is told, with where to look."""
    with pytest.raises(ActionError, match=r"action.name: there is no deployment 'no such/thing \?'") as error:
        await run({"type": "deployment", "name": "no such/thing ?"})
    assert "prefect deployment ls" in error.value.hint


async def test_parameters_that_prefect_refuses_are_told(target: Target) -> None:
    """A parameter of a wrong type: Prefect's own words, in one line."""
    with pytest.raises(ActionError, match=r"Prefect answered 4\d\d to POST /deployments/.*'many' is not") as error:
        await run(target.action(x="many"))
    assert "\n" not in error.value.message


async def test_prefects_own_forms_in_parameters_work(target: Target) -> None:
    """The rules file is the operator's: what Prefect evaluates in parameters, it evaluates here too."""
    name = f"v{uuid4().hex[:8]}"
    await Variable.aset(name, "from a variable")
    reference = {"__prefect_kind": "workspace_variable", "variable_name": name}
    task = asyncio.create_task(run(target.action(y=reference)))
    child = await target.run()
    assert child.parameters["y"] == "from a variable"
    await target.ends(child, Completed())
    await task
