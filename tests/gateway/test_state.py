"""The operator's side: state, health, documents and errors."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from proactive_prefect.prefect_api import PrefectApi
from tests.conftest import Server
from tests.gateway.conftest import TOKEN, Gateway, apply, forget
from tests.support import wait_until

ANSWERS = (200, 202, 400, 401, 404, 408, 413, 415, 422, 429, 503)
OPERATOR = {"Authorization": f"Bearer {TOKEN}"}
STATE = "/api/v1/proactive/state"


@pytest.fixture
async def scheduled(prefect_server: Server) -> Any:
    """A heartbeat, a cron rule and one that is off, beside the webhooks."""
    await apply(
        "gateway-state",
        {"kind": "heartbeat", "id": "state-pulse", "every": "1h"},
        {"kind": "cron", "id": "state-daily", "cron": "0 9 * * *"},
        {"kind": "heartbeat", "id": "state-off", "every": "1h", "enabled": False},
    )
    yield
    await forget("gateway-state")


def rule(state: dict[str, Any], rule_id: str) -> dict[str, Any]:
    """One rule's part of a state."""
    found: dict[str, Any] = next(one for one in state["rules"] if one["id"] == rule_id)
    return found


async def test_the_state_tells_how_each_rule_does(
    scheduled: None, caller: httpx.AsyncClient, gateway: Gateway, api: PrefectApi
) -> None:
    """Next fire, last outcome, active and missed runs of every kind of rule; none for a rule that is off."""
    pulse = next(
        found for found in await api.post("/deployments/filter", {"limit": 200}) if found["name"] == "state-pulse"
    )

    async def run(*states: dict[str, Any]) -> str:
        made = await api.post(f"/deployments/{pulse['id']}/create_flow_run", {})
        for state in states:
            await api.post(f"/flow_runs/{made['id']}/set_state", {"state": state, "force": True})
        return str(made["id"])

    ended = await run({"type": "RUNNING"}, {"type": "COMPLETED", "name": "Quiet"})
    working = await run({"type": "PENDING"}, {"type": "RUNNING"})
    await run({"type": "PAUSED", "name": "Missed", "state_details": {"pause_reschedule": True}})
    answer = await caller.get(STATE, headers=OPERATOR)
    assert answer.status_code == 200, answer.text
    state = answer.json()
    assert state["enabled"] is True
    now = datetime.now(UTC)
    found = rule(state, "state-pulse")
    assert (found["kind"], found["project"], found["enabled"], found["paused"]) == (
        "heartbeat", "gateway-state", True, False,
    )  # fmt: skip
    assert now - timedelta(seconds=60) < datetime.fromisoformat(found["next_fire"]) <= now + timedelta(hours=1)
    assert (found["last_outcome"]["state"], found["last_outcome"]["run_id"]) == ("Quiet", ended)
    assert found["last_outcome"]["url"].endswith(ended)
    assert (found["active_run"]["state"], found["active_run"]["run_id"]) == ("Running", working)
    assert found["missed"] == 1
    assert datetime.fromisoformat(rule(state, "state-daily")["next_fire"]).hour == 9
    assert rule(state, "state-daily")["last_outcome"] is None
    assert (rule(state, "state-off")["enabled"], rule(state, "state-off")["next_fire"]) == (False, None)
    assert state["server"]["version"].startswith("3.")
    assert {"name": "pool-gateway-state", "exists": True, "online": 0, "workers": []} in state["pools"]
    assert state["runs_by_state"]["Quiet"] >= 1


def test_the_state_counts_calls_and_says_why_a_door_is_closed(http: httpx.Client, gateway: Gateway) -> None:
    """The operator sees what callers do not: that a webhook's secret is missing, and how many were refused."""
    before = http.get(STATE, headers=OPERATOR).json()
    secret = {"X-Webhook-Secret": gateway.secret("plain")}
    http.post("/hooks/plain", headers={**secret, "Idempotency-Key": "counted"})
    http.post("/hooks/plain", headers={**secret, "Idempotency-Key": "counted"})
    http.post("/hooks/plain")
    after = http.get(STATE, headers=OPERATOR).json()
    calls = [rule(state, "plain")["webhook"]["calls"] for state in (before, after)]
    assert calls[1]["accepted"] == calls[0]["accepted"] + 1
    assert calls[1]["repeated"] == calls[0]["repeated"] + 1
    assert after["refused_calls"] == before["refused_calls"] + 1
    closed = rule(after, "no-secret")["webhook"]
    assert closed["open"] is False
    assert closed["problem"] == "secret: ${env:TEST_HOOK_NOT_SET} is not set"
    assert "door.closed webhook=no-secret" in gateway.log.read_text()


@pytest.mark.parametrize("path", [STATE, "/openapi.json", "/docs"])
@pytest.mark.parametrize("given", [None, "Bearer", "Bearer wrong", f"Basic {TOKEN}", f"Bearer {TOKEN}x"])
def test_the_operators_routes_want_the_token(path: str, given: str | None, http: httpx.Client) -> None:
    """Without the operator's bearer token: 401, as a problem document."""
    answer = http.get(path, headers={"Authorization": given} if given else {})
    assert (answer.status_code, answer.headers["content-type"]) == (401, "application/problem+json")
    assert answer.headers["www-authenticate"] == "Bearer"


def test_openapi_describes_every_answer(http: httpx.Client) -> None:
    """The document has the routes, the shapes of their answers, and problems as the errors."""
    answer = http.get("/openapi.json", headers=OPERATOR)
    assert answer.status_code == 200
    document = answer.json()
    assert document["paths"].keys() >= {"/hooks/{rule_id}", STATE, "/api/v1/proactive/why", "/healthz", "/readyz"}
    hook = document["paths"]["/hooks/{rule_id}"]["post"]
    assert hook["responses"].keys() == {str(status) for status in ANSWERS}
    for status, response in hook["responses"].items():
        media, schema = next(iter(response["content"].items()))
        names = {one["$ref"].rsplit("/")[-1] for one in schema["schema"].get("anyOf", [schema["schema"]])}
        wanted = {"200": {"Answer", "Greeting", "Rehearsal"}, "202": {"Answer"}}.get(status, {"Problem"})
        assert (media, names) == ("application/json" if status < "300" else "application/problem+json", wanted)
    assert {"ProactiveState", "RuleState", "Problem"} <= document["components"]["schemas"].keys()
    assert "HTTPValidationError" not in document["components"]["schemas"]
    assert http.get("/docs", headers=OPERATOR).headers["content-type"].startswith("text/html")


def test_health_is_open_to_all_and_says_nothing_else(http: httpx.Client) -> None:
    """Supervisors need no token."""
    assert http.get("/healthz").json() == {"status": "alive"}
    assert http.get("/readyz").json()["status"] == "ready"


@pytest.mark.parametrize(("method", "path", "status"), [("GET", "/nowhere", 404), ("POST", "/healthz", 405)])
def test_other_errors_are_problem_documents_too(method: str, path: str, status: int, http: httpx.Client) -> None:
    """An unknown path and a wrong method look like every other error."""
    answer = http.request(method, path)
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json")
    assert answer.json()["status"] == status


def test_headers_without_end_are_cut_off(http: httpx.Client) -> None:
    """More than 32 KiB of headers are refused before they are read."""
    try:
        answer = http.get("/healthz", headers={"X-Long": "x" * 200_000})
    except httpx.HTTPError:
        return
    assert answer.status_code in (400, 431)


@pytest.fixture
async def changing(prefect_server: Server) -> Any:
    """A project whose webhooks change during the test."""
    yield "gateway-changing"
    await forget("gateway-changing")


async def test_an_apply_is_all_it_takes(changing: str, gateway: Gateway) -> None:
    """A webhook is open within seconds of its apply, keeps to its newest form, and closes when it is removed."""
    async with httpx.AsyncClient(base_url=gateway.url, timeout=60) as http:

        async def answers(wanted: int) -> bool:
            file = gateway.home / "webhook-secrets" / "changing"
            secret = file.read_text().strip() if file.exists() else ""
            answer = await http.post("/hooks/changing", headers={"X-Webhook-Secret": secret}, content=b"12345678")
            return answer.status_code == wanted

        async def opens() -> bool:
            return await answers(202)

        async def is_limited() -> bool:
            return await answers(413)

        async def is_closed() -> bool:
            return await answers(401)

        assert await is_closed()
        await apply(changing, {"id": "changing"})
        _: bool = await wait_until(opens, what="the new webhook is open")
        await apply(changing, {"id": "changing", "max_body": 4})
        _ = await wait_until(is_limited, what="its new limit holds")
        await apply(changing)
        _ = await wait_until(is_closed, what="the removed webhook is closed")
