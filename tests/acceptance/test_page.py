"""The page before a whole running project: what it asks for is done, and seen to be done."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import httpx
import pytest
from playwright.async_api import expect

from ..gateway.browsing import browsing, chromium, is_live
from ..support import wait_until
from .conftest import Life

PATIENT = 120_000  # milliseconds


@pytest.fixture
def browser() -> None:
    """These tests need one."""


@pytest.mark.slow
@pytest.mark.usefixtures("browser")
async def test_an_operator_approves_a_missed_run_and_sees_it_run(life: Life) -> None:
    """A run that was due an hour ago waits in the queue; approved, it runs with that time, and the page shows it."""
    due = (datetime.now(UTC) - timedelta(hours=1)).replace(microsecond=0)
    found = life.prefect("/deployments/filter", {"deployments": {"name": {"any_": ["by-hand"]}}})
    late = {"type": "SCHEDULED", "state_details": {"scheduled_time": due.isoformat()}}
    made = life.prefect(
        f"/deployments/{found[0]['id']}/create_flow_run",
        {"state": late, "labels": {"proactive.cause": "schedule"}, "idempotency_key": f"missed by-hand {due}"},
    )
    async with chromium() as browser, browsing(browser) as (tab, heard):
        await tab.goto(f"{life.up['gateway_url']}/?token={life.up['token']}")
        await is_live(tab)
        row = tab.locator("#missed-body .row", has=tab.locator(f'a[href*="{made["id"]}"]'))
        await expect(row).to_be_visible(timeout=PATIENT)
        await row.get_by_role("button", name="Run").click()
        await expect(row).to_have_count(0, timeout=PATIENT)
        rule = tab.locator('[data-rule="by-hand"] .last')
        await expect(rule).to_contain_text("completed", timeout=PATIENT)
        await expect(rule).to_contain_text(f"by-hand was due at {due.isoformat()}")
        assert heard.complaints() == []
    run = life.prefect("/flow_runs/filter", {"flow_runs": {"id": {"any_": [made["id"]]}}})[0]
    assert run["state"]["name"] == "Completed"
    why = life.command("why", "by-hand", due.isoformat(), "--json")
    assert '"page"' in why.stdout, why.stdout


@pytest.mark.slow
@pytest.mark.usefixtures("browser")
async def test_an_operator_pauses_resumes_and_runs_a_rule(life: Life) -> None:
    """By the buttons of the page; what Prefect then says comes back to it by itself."""
    async with chromium() as browser, browsing(browser) as (tab, _):
        await tab.goto(f"{life.up['gateway_url']}/?token={life.up['token']}")
        await is_live(tab)
        rule = tab.locator('[data-rule="by-hand"]')
        await rule.get_by_role("button", name="Pause").click()
        await expect(rule.locator(".badge")).to_have_text("paused", timeout=PATIENT)
        await rule.get_by_role("button", name="Resume").click()
        await expect(rule.locator(".badge")).to_have_count(0, timeout=PATIENT)
        before = len(life.runs("by-hand", "Completed"))
        await rule.get_by_role("button", name="Run now").click()
        await wait_until(lambda: len(life.runs("by-hand", "Completed")) > before, what="it ran", timeout=120, every=1)


@pytest.mark.slow
@pytest.mark.usefixtures("browser")
async def test_an_operator_sees_a_delivery_tries_it_and_replays_it(life: Life) -> None:
    """What a caller sent is on the page as it comes; a dry run says what it would do; a replay is a run more."""
    async with chromium() as browser, browsing(browser) as (tab, heard):
        await tab.goto(f"{life.up['gateway_url']}/?token={life.up['token']}")
        await is_live(tab)
        hook = life.up["webhooks"]["door"]
        async with httpx.AsyncClient(timeout=60, headers={"X-Webhook-Secret": hook["secret"]}) as http:
            answer = (await http.post(hook["url"], json={"text": "by the page"})).raise_for_status().json()
        row = tab.locator(f'#deliveries-body [data-delivery="{answer["delivery_id"]}"]')
        await expect(row).to_contain_text("has its run", timeout=PATIENT)
        await row.get_by_role("button", name="Show").click()
        dialog = tab.get_by_role("dialog")
        await expect(dialog.locator("pre")).to_contain_text("by the page")
        await dialog.get_by_role("button", name="Dry run").click()
        await expect(dialog.locator(".told")).to_have_text("It would run.", timeout=PATIENT)
        before = len(life.runs("door", "Completed"))
        await dialog.get_by_role("button", name="Replay").click()
        await dialog.get_by_role("button", name="Replay").click()
        await wait_until(lambda: len(life.runs("door", "Completed")) > before, what="it ran", timeout=120, every=1)
        assert heard.complaints() == []
