"""`GET /api/v1/proactive/why`: the gateway's ledger is fed by it, and answers."""

from __future__ import annotations

from datetime import UTC, datetime
from uuid import uuid4

import httpx
import pytest
from prefect.states import Completed, Running

from proactive_prefect.prefect_api import PrefectApi
from proactive_prefect.prefect_api.deployments import read_deployments
from proactive_prefect.prefect_api.runs import create_run, set_state
from tests.gateway.conftest import TOKEN, Gateway
from tests.support import wait_until

WHY = "/api/v1/proactive/why"
OPERATOR = {"Authorization": f"Bearer {TOKEN}"}


async def test_a_run_is_explained_soon_after_it_ended(
    gateway: Gateway, caller: httpx.AsyncClient, api: PrefectApi
) -> None:
    """Outcome, times and every state of its run, with its address in Prefect."""
    deployment = next(one for one in await read_deployments(api) if one.name == "plain")
    run = await create_run(api, deployment.id, idempotency_key=str(uuid4()))
    for state in (Running(), Completed(message="all well")):
        await set_state(api, run.id, state)
    assert run.expected_start_time is not None
    ask = {"rule": "plain", "at": run.expected_start_time.isoformat()}

    async def known() -> httpx.Response | None:
        answer = await caller.get(WHY, params=ask, headers=OPERATOR)
        return answer if answer.status_code == 200 and answer.json()["verdict"] == "completed" else None

    answer = await wait_until(known, what="the ledger knows of the run", timeout=90)
    assert answer is not None
    found = answer.json()
    assert found["reason"] == "all well"
    assert found["run"]["run_id"] == str(run.id)
    assert [state["name"] for state in found["run"]["states"]] == ["Scheduled", "Running", "Completed"]


async def test_a_time_without_an_occurrence_is_explained_too(gateway: Gateway, caller: httpx.AsyncClient) -> None:
    """For a time before there was the rule, that is the answer."""

    async def seen() -> httpx.Response | None:
        answer = await caller.get(WHY, params={"rule": "plain", "at": "2020-01-01T00:00:00Z"}, headers=OPERATOR)
        return answer if answer.status_code == 200 else None

    answer = await wait_until(seen, what="the ledger knows of the rule", timeout=90)
    assert answer is not None
    assert answer.json()["verdict"] == "before_created"


@pytest.mark.parametrize(
    ("query", "headers", "status"),
    [
        ({"rule": "plain", "at": datetime.now(UTC).isoformat()}, {}, 401),
        ({"rule": "never-seen", "at": datetime.now(UTC).isoformat()}, OPERATOR, 404),
        ({"rule": "plain", "at": "2026-03-01T12:00:00"}, OPERATOR, 422),
        ({"rule": "plain"}, OPERATOR, 422),
        ({"rule": "x\x00\ud800".encode("utf-8", "surrogatepass"), "at": "2026-03-01T12:00:00Z"}, OPERATOR, 404),
        ({"rule": "plain", "at": "9999-12-31T23:59:59+00:00"}, OPERATOR, 400),
        ({"rule": "plain", "at": "0001-01-01T00:00:00+14:00"}, OPERATOR, 400),
    ],
)
async def test_what_is_wrong_is_a_problem_document(
    gateway: Gateway, caller: httpx.AsyncClient, query: dict[str, str], headers: dict[str, str], status: int
) -> None:
    """No token, a rule that nobody ever saw, a time without an offset or beyond the calendar."""
    answer = await caller.get(WHY, params=query, headers=headers)
    assert answer.status_code == status, answer.text
    if status != 200:
        assert answer.headers["content-type"] == "application/problem+json"
