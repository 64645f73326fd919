"""The inbox behind the door: what an operator sees of it, and what a rule may ask of it."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx

from proactive_prefect.prefect_api import PrefectApi
from proactive_prefect.prefect_api.runs import PAYLOAD_LABEL
from tests.gateway.conftest import CANARY, TOKEN, Gateway
from tests.support import wait_until

OPERATOR = {"Authorization": f"Bearer {TOKEN}"}
DELIVERIES = "/api/v1/proactive/deliveries"


async def call(caller: httpx.AsyncClient, gateway: Gateway, rule_id: str, **keys: Any) -> httpx.Response:
    """Call a webhook of scheme header with the right secret."""
    headers = {"X-Webhook-Secret": gateway.secret(rule_id), **keys.pop("headers", {})}
    return await caller.post(f"/hooks/{rule_id}", headers=headers, **keys)


async def shown(caller: httpx.AsyncClient, name: str) -> dict[str, Any]:
    """What the operator is shown of a delivery."""
    answer = await caller.get(f"{DELIVERIES}/{name}", headers=OPERATOR)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def settled(caller: httpx.AsyncClient, name: str) -> dict[str, Any]:
    """The delivery, once it waits no more."""

    async def look() -> dict[str, Any] | None:
        found = await shown(caller, name)
        return found if found["status"] != "waiting" else None

    found = await wait_until(look, what=f"delivery {name} is settled")
    assert found is not None
    return found


async def test_a_delivery_is_shown_listed_replayed_and_erased(
    caller: httpx.AsyncClient, gateway: Gateway, api: PrefectApi
) -> None:
    """By its operator only; without what lets callers in; a replay is a delivery and a run of its own."""
    sent = {"X-Session-Token": f"private-{CANARY}", "X-Event": "push", "Idempotency-Key": "shown-1"}
    first = await call(caller, gateway, "plain", json={"n": 1}, headers=sent)
    assert first.status_code == 202
    found = await settled(caller, "shown-1")
    assert (found["status"], found["webhook"], found["payload"]) == ("dispatched", "plain", {"n": 1})
    assert found["run_id"] == first.json().get("flow_run_id", found["run_id"])
    assert (found["headers"]["x-event"], found["headers"]["x-session-token"]) == ("push", "(redacted)")
    assert "x-webhook-secret" not in found["headers"]
    listed = (await caller.get(DELIVERIES, params={"webhook": "plain", "limit": 500}, headers=OPERATOR)).json()
    assert found["id"] in [one["id"] for one in listed["deliveries"]]
    assert CANARY not in json.dumps(listed) + json.dumps(found)

    again = await caller.post(f"{DELIVERIES}/{found['id']}/replay", headers=OPERATOR)
    assert (again.status_code, again.json()["replay_of"]) == (202, found["id"])
    second = await settled(caller, again.json()["id"])
    assert second["run_id"] not in (None, found["run_id"])
    parameters = (await api.get(f"/flow_runs/{second['run_id']}"))["parameters"]
    assert json.loads(parameters["payload"]) == {"n": 1}

    assert (await caller.delete(f"{DELIVERIES}/{found['id']}", headers=OPERATOR)).json() == {"erased": 1}
    bare = await shown(caller, found["id"])
    assert (bare["headers"], bare["payload"], bare["status"]) == ({}, None, "dispatched")
    assert bare["erased_at"] is not None
    assert (await caller.post(f"{DELIVERIES}/{found['id']}/replay", headers=OPERATOR)).status_code == 400
    repeat = await call(caller, gateway, "plain", json={"n": 2}, headers={"Idempotency-Key": "shown-1"})
    assert (repeat.status_code, repeat.json()["flow_run_id"]) == (200, found["run_id"])

    for method, path in (("GET", ""), ("GET", "/x"), ("POST", "/x/replay"), ("DELETE", "/x")):
        assert (await caller.request(method, DELIVERIES + path)).status_code == 401
        assert (await caller.request(method, DELIVERIES + path, headers=OPERATOR)).status_code in (200, 404)


async def test_calls_for_the_same_thing_become_one_run(
    caller: httpx.AsyncClient, gateway: Gateway, api: PrefectApi
) -> None:
    """It gets all of them, in order; those for something else have a run of their own."""
    sent = [("a", 1), ("a", 2), ("b", 3), ("a", 4)]
    for repo, number in sent:
        key = {"Idempotency-Key": f"bundle-{number}"}
        answer = await call(caller, gateway, "bundled", json={"repo": repo, "n": number}, headers=key)
        assert (answer.status_code, answer.json().keys()) == (202, {"status", "delivery_id"})
    found = {number: await settled(caller, f"bundle-{number}") for _, number in sent}
    stands = await settled(caller, found[1]["id"])
    assert [found[number]["status"] for number in (1, 2, 3, 4)] == ["dispatched", "joined", "dispatched", "joined"]
    assert {found[number]["joined_to"] for number in (2, 4)} == {found[1]["id"]}

    async def payload(run_id: str) -> Any:
        return json.loads((await api.get(f"/flow_runs/{run_id}"))["parameters"]["payload"])

    assert [one["n"] for one in await payload(stands["run_id"])] == [1, 2, 4]
    assert [one["n"] for one in await payload(found[3]["run_id"])] == [3]
    repeat = await call(caller, gateway, "bundled", json={}, headers={"Idempotency-Key": "bundle-4"})
    assert (repeat.status_code, repeat.json()["flow_run_id"]) == (200, stands["run_id"])


async def test_equal_calls_without_an_id_are_one_where_the_rule_says_so(
    caller: httpx.AsyncClient, gateway: Gateway
) -> None:
    """The second gets the first answer; another body, or an id, makes it another call; elsewhere each call counts."""
    answers = [await call(caller, gateway, "deduped", json={"n": n}) for n in (1, 1, 2)]
    assert [answer.status_code for answer in answers] == [202, 200, 202]
    assert answers[0].json()["delivery_id"] == answers[1].json()["delivery_id"] != answers[2].json()["delivery_id"]
    named = await call(caller, gateway, "deduped", json={"n": 1}, headers={"Idempotency-Key": "deduped-1"})
    assert named.status_code == 202
    assert [(await call(caller, gateway, "plain", json={"n": 1})).status_code for _ in range(2)] == [202, 202]


async def test_a_caller_may_be_answered_with_the_outcome(
    caller: httpx.AsyncClient, gateway: Gateway, api: PrefectApi
) -> None:
    """With `wait` the answer comes when the run has ended, and says how."""
    waiting = asyncio.create_task(call(caller, gateway, "asks", json={}, headers={"Idempotency-Key": "asks-1"}))

    async def known() -> str | None:
        answer = await caller.get(f"{DELIVERIES}/asks-1", headers=OPERATOR)
        run: str | None = answer.json().get("run_id")
        return run

    run_id = await wait_until(known, what="the run of the call")
    assert not waiting.done()
    for state in (
        {"type": "PENDING"},
        {"type": "RUNNING"},
        {"type": "COMPLETED", "message": "3 files changed"},
    ):
        await api.post(f"/flow_runs/{run_id}/set_state", {"state": state, "force": True})
    answer = await waiting
    assert answer.status_code == 200, answer.text
    assert (answer.json()["outcome"], answer.json()["message"]) == ("completed", "3 files changed")
    assert answer.json()["flow_run_id"] == run_id


async def test_a_large_payload_stays_in_the_inbox(caller: httpx.AsyncClient, gateway: Gateway, api: PrefectApi) -> None:
    """More than Prefect takes is accepted; its run is told where to fetch it."""
    key = {"Idempotency-Key": "large-1"}
    answer = await call(caller, gateway, "plain", json={"text": "x" * 900_000}, headers=key)
    assert answer.status_code == 202, answer.text
    found = await settled(caller, "large-1")
    run = await api.get(f"/flow_runs/{found['run_id']}")
    assert run["parameters"].get("payload") is None
    assert run["labels"][PAYLOAD_LABEL] == found["id"]
    assert found["payload_bytes"] > 900_000


async def test_a_dry_run_says_what_would_happen_and_does_nothing(caller: httpx.AsyncClient, gateway: Gateway) -> None:
    """For the operator only: skipped by `when`, shaped by the template, joined with others, or a repeat."""

    async def rehearse(rule_id: str, body: Any, **headers: str) -> dict[str, Any]:
        answer = await caller.post(f"/hooks/{rule_id}?dry_run", json=body, headers={**OPERATOR, **headers})
        assert answer.status_code == 200, answer.text
        told: dict[str, Any] = answer.json()
        return told

    before = (await caller.get(DELIVERIES, params={"limit": 1}, headers=OPERATOR)).json()
    assert (await rehearse("asked", {"go": True}))["would"] == "run"
    no = await rehearse("asked", {"go": False})
    assert (no["would"], no["reason"].split(":")[0]) == ("skip", "condition_false")
    shaped = await rehearse("shaped", {"user": "me"}, **{"X-Event": "push"})
    assert (shaped["payload"], shaped["verdict"]) == ({"who": "me", "event": "push"}, "malformed")
    signed = await rehearse("plain", {}, **{"X-Webhook-Secret": gateway.secret("plain")})
    assert (signed["would"], signed["verdict"]) == ("run", "verified")
    together = await rehearse("bundled", {"repo": "z"})
    assert (together["would"], together["group"]) == ("join", '"z"')
    assert (await rehearse("off", {}))["reason"].startswith("disabled: ")
    await call(caller, gateway, "plain", json={}, headers={"Idempotency-Key": "rehearsed-1"})
    assert (await rehearse("plain", {}, **{"Idempotency-Key": "rehearsed-1"}))["would"] == "repeat"
    assert (await rehearse("github", {"zen": "x"}, **{"X-GitHub-Event": "ping"}))["would"] == "greet"
    after = (await caller.get(DELIVERIES, params={"limit": 2}, headers=OPERATOR)).json()
    assert after["deliveries"][0]["delivery_id"] == "rehearsed-1"
    assert [one["id"] for one in after["deliveries"][1:]] == [one["id"] for one in before["deliveries"]]
    for headers in ({}, {"Authorization": "Bearer wrong"}, {"X-Webhook-Secret": gateway.secret("plain")}):
        assert (await caller.post("/hooks/plain?dry_run", json={}, headers=headers)).status_code == 401
