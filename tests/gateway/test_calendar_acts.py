"""What is asked for on the calendar is done in a real Prefect, and comes back through the ledger."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from prefect.states import Paused, Scheduled

from proactive_prefect.ledger.db import open_ledger
from proactive_prefect.ledger.tables import CalendarChange
from proactive_prefect.prefect_api import PrefectApi
from proactive_prefect.prefect_api.deployments import read_deployments
from proactive_prefect.prefect_api.runs import create_run, read_run, recent_runs, set_state
from proactive_prefect.settings import Settings
from tests.gateway.conftest import TOKEN, Gateway, apply, forget
from tests.support import wait_until

OPS = "/api/v1/ops/calendar"
DAY = timedelta(days=1)
RULE = {"id": "acts", "kind": "cron", "cron": "0 9 * * *", "on_overlap": "allow"}


@pytest.fixture
async def client(gateway: Gateway) -> AsyncIterator[httpx.AsyncClient]:
    """The operator, at a gateway that knows of the rule `acts`."""
    await apply("calendar-tests", RULE)
    headers = {"Authorization": f"Bearer {TOKEN}"}
    try:
        async with httpx.AsyncClient(base_url=gateway.url, headers=headers, timeout=60) as client:
            await wait_until(lambda: scheduled(client), what="the calendar foresees the rule", timeout=90)
            yield client
    finally:
        await forget("calendar-tests")


async def entries(client: httpx.AsyncClient) -> list[dict[str, Any]]:
    """The rule's entries of some days."""
    now = datetime.now(UTC)
    window = {"start": (now - 2 * DAY).isoformat(), "end": (now + 5 * DAY).isoformat(), "rule": "acts"}
    found = (await client.get(f"{OPS}/events", params=window)).json()
    return [*found["events"], *found["always_running"]]


async def scheduled(client: httpx.AsyncClient) -> list[str]:
    """The ids of what is yet to come by the rule's schedule."""
    found = await entries(client)
    return [one["event_id"] for one in found if one["status"] == "scheduled" and not one["rescheduled_from"]]


async def status_of(client: httpx.AsyncClient, event_id: str) -> str | None:
    """What an entry says."""
    return next((one["status"] for one in await entries(client) if one["event_id"] == event_id), None)


async def act(client: httpx.AsyncClient, event_id: str, headers: dict[str, str] | None = None, **body: Any) -> Any:
    """Ask something of an entry."""
    answer = await client.post(f"{OPS}/events/{event_id}/action", json=body, headers=headers)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def test_actions_and_changes_reach_prefect(gateway: Gateway, client: httpx.AsyncClient, api: PrefectApi) -> None:
    """Run now, pause and resume; approve what was missed; move or drop one to come: seen in Prefect and back here."""
    deployment = next(one for one in await read_deployments(api) if one.name == "acts")
    coming = await scheduled(client)

    # Run now: once for one request, however often it is sent.
    once = {"Idempotency-Key": "one-request"}
    made = [(await act(client, coming[0], once, action="run_now"))["run_id"] for _ in range(2)]
    assert made[0] == made[1]
    assert (await read_run(api, made[0])).deployment_id is not None

    # Move the fourth of those to come, which Prefect has not made yet: its run ends, the new one waits.
    target = datetime.now(UTC).replace(microsecond=0) + timedelta(hours=30)
    shown = (
        await client.post(f"{OPS}/changes", json={"type": "move", "event_id": coming[3], "target": target.isoformat()})
    ).json()
    assert shown["confirmable"], shown
    confirmed = [await client.post(f"{OPS}/changes/{shown['id']}/confirm") for _ in range(2)]
    assert [one.status_code for one in confirmed] == [200, 200], confirmed[0].text
    assert confirmed[0].json() == confirmed[1].json()
    moved = await read_run(api, confirmed[0].json()["run_id"])
    assert moved.expected_start_time == target
    assert moved.state is not None
    assert moved.state.is_scheduled()
    ended = [run for run in await recent_runs(api, deployment.id) if run.state and run.state.is_cancelled()]
    assert [run.state.message for run in ended if run.state] == [f"Moved to {target.isoformat()} by operator."]
    await wait_until(lambda: _is(client, coming[3], "skipped"), what="the calendar says that it was moved", timeout=60)

    async def stands_in() -> list[str]:
        return [one["status"] for one in await entries(client) if one["rescheduled_from"] == coming[3]]

    assert await wait_until(stands_in, what="the calendar shows the new time", timeout=60) == ["scheduled"]

    # Drop the third; the gateway that this was confirmed at died before it told Prefect, and another goes on with it.
    shown = (await client.post(f"{OPS}/changes", json={"type": "skip", "event_id": coming[2]})).json()
    async with open_ledger(Settings(home=gateway.home)) as ledger, ledger.write() as session:
        change = await session.get_one(CalendarChange, shown["id"])
        change.status, change.confirmed_at, change.confirmed_by = "confirmed", datetime.now(UTC) - DAY, "operator"
    await wait_until(lambda: _is(client, coming[2], "skipped"), what="the change is carried out", timeout=60)

    # A missed one is approved: Prefect lets it go, for its original time.
    due = datetime.now(UTC).replace(microsecond=0) - timedelta(hours=3)
    held = await create_run(
        api,
        deployment.id,
        idempotency_key=f"missed acts {due.isoformat()}",
        state=Scheduled(scheduled_time=due),
        cause="schedule",  # type: ignore[arg-type]
    )
    await set_state(api, held.id, Paused(name="Missed", timeout_seconds=86_400, reschedule=True), force=True)
    event_id = f"acts:{due:%Y%m%dT%H%M%S.%fZ}"
    await wait_until(lambda: _is(client, event_id, "missed"), what="it is missed", timeout=90)
    await act(client, event_id, action="approve_backfill_run")
    approved = await read_run(api, held.id)
    assert approved.state is not None
    assert not approved.state.is_paused()
    assert approved.expected_start_time == due

    # Pause and resume: the future goes and comes back.
    await act(client, coming[0], action="pause")
    await wait_until(lambda: _has_no_future(client), what="a paused rule has no future", timeout=60)
    await act(client, coming[0], action="resume")
    await wait_until(lambda: scheduled(client), what="a resumed rule has one again", timeout=60)


async def _is(client: httpx.AsyncClient, event_id: str, status: str) -> bool:
    return await status_of(client, event_id) == status


async def _has_no_future(client: httpx.AsyncClient) -> bool:
    return not await scheduled(client)
