"""`/api/v1/heartbeat` over HTTP; Prefect is away, and what was accepted is kept all the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest

from proactive_prefect.gateway.secrets import read_token
from proactive_prefect.ledger.db import open_ledger
from proactive_prefect.settings import Settings

from ..wakes.test_wakes import deploy, heartbeat, waits
from .test_metrics import serving

WAKE, LAST = "/api/v1/heartbeat/wake", "/api/v1/heartbeat/last"


@pytest.fixture
async def settings(tmp_path: Path) -> Settings:
    """A ledger that knows two heartbeats, one of a session."""
    made = Settings(home=tmp_path / "home", token="operator-token", api_patience=1)
    async with open_ledger(made) as ledger:
        await deploy(ledger, heartbeat("watch"), heartbeat("mine", session="s1"))
    return made


async def test_an_accepted_wake_outlives_the_gateway(settings: Settings) -> None:
    """202 means that it is kept: another gateway finds it, and tells that it waits."""
    async with serving(settings) as (_, client):
        answer = await client.post(WAKE, json={"mode": "next", "reason": "look", "session_id": "s1"})
        assert (answer.status_code, answer.json()["rules"]) == (202, ["mine", "watch"])
    async with serving(settings) as (_, client):
        found = (await client.get(LAST)).json()
    assert found["last"] is None
    assert [(one["rule_id"], one["reason"], one["mode"]) for one in found["waiting"]] == [
        ("mine", "look", "next"),
        ("watch", "look", "next"),
    ]


async def test_the_same_key_wakes_once(settings: Settings) -> None:
    """A caller who repeats the call, having heard nothing, changes nothing."""
    async with serving(settings) as (app, client):
        for _ in range(3):
            body = {"mode": "now", "rule": "watch"}
            answer = await client.post(WAKE, json=body, headers={"Idempotency-Key": "one"})
            assert answer.status_code == 202
        assert len(await waits(app.state.service.ledger)) == 1
        metrics = (await client.get("/api/v1/ops/metrics/scheduling-runtime")).json()["metrics"]
        assert metrics["counters"]["heartbeat_wake_requests"] == 3
        assert metrics["event_counts"]["heartbeat"]["heartbeat_woken"] == 1


async def test_the_same_key_for_something_else_wakes_that_too(settings: Settings) -> None:
    """A key that was used before keeps nobody from a wake that was not asked for yet."""
    asked: list[dict[str, Any]] = [
        {"mode": "now", "rule": "watch"},
        {"mode": "now", "rule": "mine"},
        {"mode": "next", "rule": "watch"},
        {"mode": "next", "session_id": "s1"},
    ]
    async with serving(settings) as (app, client):
        rules: list[list[str]] = []
        for body in (*asked, *asked):
            answer = await client.post(WAKE, json=body, headers={"Idempotency-Key": "one"})
            assert (answer.status_code, answer.json()["mode"]) == (202, body["mode"])
            rules.append(answer.json()["rules"])
        assert rules == [["watch"], ["mine"], ["watch"], ["mine", "watch"]] * 2
        assert len(await waits(app.state.service.ledger)) == 5


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"mode": "later"}, 422),
        ({}, 422),
        ({"mode": "next", "reason": ""}, 422),
        ({"mode": "next", "reason": "x" * 501}, 422),
        ({"mode": "next", "sesion_id": "s1"}, 422),
        ({"mode": "now", "rule": "nobody"}, 409),
    ],
)
async def test_what_cannot_be_done_is_refused(settings: Settings, body: dict[str, Any], status: int) -> None:
    """With a problem document, and nothing is kept."""
    async with serving(settings) as (app, client):
        answer = await client.post(WAKE, json=body)
        assert answer.status_code == status
        assert answer.headers["content-type"] == "application/problem+json"
        assert await waits(app.state.service.ledger) == []


async def test_a_reader_may_look_and_not_wake(settings: Settings) -> None:
    """The read token sees the last heartbeats; waking takes the operator's; without either there is nothing."""
    async with serving(settings) as (_, client):
        headers = {"Authorization": f"Bearer {read_token(settings)}"}

        async def ask(method: str, path: str, **more: Any) -> httpx.Response:
            return await client.request(method, path, **more)

        assert (await ask("GET", LAST, headers=headers)).status_code == 200
        assert (await ask("POST", WAKE, headers=headers, json={"mode": "now"})).status_code == 403
        for method, path in (("GET", LAST), ("POST", WAKE)):
            answer = await ask(method, path, headers={"Authorization": "Bearer no"}, json={"mode": "now"})
            assert answer.status_code == 401
