"""`/api/v1/proactive/rules` over a real ledger; what it does in Prefect is in the tests of the page."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest

from proactive_prefect.gateway import rules
from proactive_prefect.ledger.db import open_ledger
from proactive_prefect.ledger.occurrences import apply
from proactive_prefect.ledger.versions import Status
from proactive_prefect.rules.models import HeartbeatRule, WebhookRule
from proactive_prefect.settings import Settings
from tests.gateway.serving import READ, TOKEN, Known, serving
from tests.ledger.histories import LONG_AGO, a_run, story
from tests.ledger.test_why import RAN, note, seen

RULES = "/api/v1/proactive/rules"
ACTION = {"type": "python", "call": "a:b"}


@pytest.fixture
async def known(tmp_path: Path) -> AsyncIterator[Known]:
    """A gateway's parts over a ledger with four rules, one of them deleted."""
    settings = Settings(home=tmp_path, token=TOKEN, read_token=READ)
    now = datetime.now(UTC)
    disk = {"id": "disk", "every": "1h", "action": ACTION, "description": "<b>disk</b>", "tags": ["ops"]}
    made: list[tuple[HeartbeatRule | WebhookRule, Status]] = [
        (HeartbeatRule.model_validate(disk), "active"),
        (HeartbeatRule.model_validate({**disk, "id": "held"}), "paused"),
        (WebhookRule.model_validate({"id": "hook", "action": ACTION}), "active"),
        (HeartbeatRule.model_validate({**disk, "id": "gone"}), "deleted"),
    ]
    async with open_ledger(settings) as ledger:
        await note(ledger, *(seen(status, at=now, rule=rule) for rule, status in made), at=now)
        for hours in range(14):
            run = a_run(f"run-{hours}", due=now - timedelta(hours=hours + 1))
            async with ledger.write() as session:
                await apply(session, run, story(run, *RAN, messages=["", "", "", "well"]), log_since=LONG_AGO)
        yield Known(settings, ledger)


@pytest.fixture
async def http(known: Known) -> AsyncIterator[httpx.AsyncClient]:
    """A client with the operator's token."""
    async with serving(known, rules.router) as url:
        headers = {"Authorization": f"Bearer {TOKEN}"}
        async with httpx.AsyncClient(base_url=url, headers=headers, timeout=30) as client:
            yield client


async def test_each_rule_comes_with_what_comes_and_what_was(http: httpx.AsyncClient) -> None:
    """By id; a paused one and a webhook are due at no time; what was is bounded."""
    found = {rule["id"]: rule for rule in (await http.get(RULES)).json()["rules"]}
    assert list(found) == ["disk", "held", "hook"]
    disk = found["disk"]
    assert (disk["when"], disk["status"], disk["description"], disk["tags"]) == (
        "every 1h",
        "active",
        "<b>disk</b>",
        ["ops"],
    )
    fires = [datetime.fromisoformat(text) for text in disk["next_fires"]]
    assert len(fires) == rules.FIRES
    assert all(later - earlier == timedelta(hours=1) for earlier, later in itertools.pairwise(fires))
    assert [one["run_id"] for one in disk["last"]] == [f"run-{n}" for n in reversed(range(rules.OUTCOMES))]
    assert {(one["outcome"], one["reason"]) for one in disk["last"]} == {("completed", "well")}
    assert (found["held"]["status"], found["held"]["next_fires"], found["held"]["last"]) == ("paused", [], [])
    assert (found["hook"]["when"], found["hook"]["next_fires"]) == ("when called", [])
    only = (await http.get(RULES, params={"rule": ["hook", "nobody"]})).json()["rules"]
    assert [rule["id"] for rule in only] == ["hook"]


async def test_a_reader_looks_and_tells_nothing(http: httpx.AsyncClient) -> None:
    """The read token gets the list, and 403 for what would change something; no token gets 401."""
    for headers, look, tell in (({"Authorization": f"Bearer {READ}"}, 200, 403), ({"Authorization": ""}, 401, 401)):
        assert (await http.get(RULES, headers=headers)).status_code == look
        for done in ("pause", "resume", "run"):
            assert (await http.post(f"{RULES}/disk/{done}", headers=headers)).status_code == tell


@pytest.mark.parametrize("rule_id", ["nobody", "gone", "..", "%2e%2e%2fx", "x" * 300])
async def test_what_is_not_deployed_cannot_be_told_anything(rule_id: str, http: httpx.AsyncClient) -> None:
    """Whatever is asked, and before Prefect is."""
    answer = await http.post(f"{RULES}/{rule_id}/run")
    assert answer.status_code in (404, 405, 422)
    assert answer.headers["content-type"] == "application/problem+json"
