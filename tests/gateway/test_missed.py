"""The stasis queue over HTTP: what waits is listed, and each is decided once, by the operator only."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import httpx
import pytest

from proactive_prefect.firing.gate import Hold
from proactive_prefect.firing.outcome import missed
from proactive_prefect.prefect_api import PrefectApi
from proactive_prefect.prefect_api.deployments import read_deployments
from proactive_prefect.prefect_api.runs import FlowRun, create_run, read_run, set_state
from tests.gateway.conftest import TOKEN, Gateway
from tests.support import wait_until

QUEUE = "/api/v1/proactive/missed"
RESOLVE = f"{QUEUE}/resolve"
OPERATOR = {"Authorization": f"Bearer {TOKEN}"}


async def held(api: PrefectApi, rule_id: str) -> FlowRun:
    """A run of the rule that was missed."""
    deployment = next(one for one in await read_deployments(api) if one.name == rule_id)
    run = await create_run(api, deployment.id, idempotency_key=str(uuid4()))
    await set_state(api, run.id, missed(Hold("found late")), force=True)
    return run


async def listed(caller: httpx.AsyncClient, rule_id: str, count: int) -> list[dict[str, Any]]:
    """The items of the rule, as soon as there are so many."""

    async def there() -> list[list[dict[str, Any]]]:
        answer = await caller.get(QUEUE, params={"rule": rule_id}, headers=OPERATOR)
        items: list[dict[str, Any]] = answer.json()["items"]
        return [items] if len(items) == count else []

    found = await wait_until(there, what=f"{count} missed runs of {rule_id} are listed", timeout=90)
    return found[0]


async def test_missed_runs_are_listed_and_decided(gateway: Gateway, caller: httpx.AsyncClient, api: PrefectApi) -> None:
    """By number, by run, or all of a rule; each once, with who and how."""
    runs = [await held(api, "small") for _ in range(4)]
    items = await listed(caller, "small", 4)
    assert [item["run_id"] for item in items] == [str(run.id) for run in runs]
    assert {item["waits_for"] for item in items} == {"decision"}
    assert all("found late" in item["reason"] for item in items)
    target = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    wanted: list[dict[str, Any]] = [
        {"action": "approve_backfill_run", "ids": [items[0]["occurrence_id"]]},
        {"action": "reschedule", "run_ids": [items[1]["run_id"]], "target": target},
        {"action": "delete_missed", "rule": "small"},
    ]
    for number, body in enumerate(wanted):
        answer = await caller.post(RESOLVE, json=body, headers=OPERATOR)
        assert answer.status_code == 200, answer.text
        assert answer.json()["resolved"] == (2 if number == 2 else 1)
        for result in answer.json()["results"]:
            assert (result["by"], result["via"], result["carried_out"]) == ("operator", "api", True)
    names = [state.name for run in runs if (state := (await read_run(api, run.id)).state)]
    assert names == ["Resuming", "Rescheduled", "Cancelled", "Cancelled"]
    again = await caller.post(RESOLVE, json=wanted[0] | {"action": "delete_missed"}, headers=OPERATOR)
    [result] = again.json()["results"]
    assert (again.json()["resolved"], result["status"], result["action"]) == (0, "already", "approve_backfill_run")
    assert await listed(caller, "small", 0) == []


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"action": "run_it", "all": True}, 422),
        ({"action": "delete_missed"}, 400),
        ({"action": "delete_missed", "all": True, "rule": "small"}, 400),
        ({"action": "delete_missed", "ids": [2**52]}, 400),
        ({"action": "delete_missed", "ids": [2**70]}, 422),
        ({"action": "delete_missed", "ids": ["1; DROP TABLE occurrences"]}, 422),
        ({"action": "delete_missed", "run_ids": ["../deployments"]}, 422),
        ({"action": "delete_missed", "run_ids": [str(uuid4())]}, 400),
        ({"action": "reschedule", "all": True}, 400),
        ({"action": "reschedule", "all": True, "target": "2030-01-01T00:00:00"}, 422),
        ({"action": "reschedule", "all": True, "target": "2020-01-01T00:00:00Z"}, 400),
        ({"action": "delete_missed", "all": True, "force": True}, 422),
        ([], 422),
    ],
)
async def test_what_is_wrong_changes_nothing(
    gateway: Gateway, caller: httpx.AsyncClient, body: Any, status: int
) -> None:
    """And is a problem document."""
    answer = await caller.post(RESOLVE, json=body, headers=OPERATOR)
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"


async def test_only_the_operator_decides(gateway: Gateway, caller: httpx.AsyncClient) -> None:
    """The read token lists; without one there is nothing."""
    reader = {"Authorization": f"Bearer {(gateway.home / 'read-token').read_text().strip()}"}
    body = {"action": "delete_missed", "ids": []}
    assert (await caller.get(QUEUE, headers=reader)).status_code == 200
    assert (await caller.post(RESOLVE, json=body, headers=reader)).status_code == 403
    assert (await caller.get(QUEUE)).status_code == 401
    assert (await caller.post(RESOLVE, json=body)).status_code == 401
