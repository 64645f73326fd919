"""`/api/v1/ops/calendar/…` and `/calendar.ics`, over a real ledger; what they do in Prefect is in another file."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import icalendar
import pytest
from sqlalchemy import select

from proactive_prefect.calendar.calendar import Calendar
from proactive_prefect.gateway import calendar
from proactive_prefect.ledger.db import open_ledger
from proactive_prefect.ledger.tables import Resolution
from proactive_prefect.prefect_api import PrefectApi
from proactive_prefect.settings import Settings
from tests.calendar.rulesets import DAILY, DAY, HELD, HOUR, MINUTELY, RAN, note, run_of, seen, tell
from tests.gateway.serving import READ, TOKEN, Known, serving
from tests.missed.conftest import away as away

EVENTS = "/api/v1/ops/calendar/events"
TODAY = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
MISSED = TODAY - DAY + 9 * HOUR
WINDOW = {"start": (TODAY - 2 * DAY).isoformat(), "end": (TODAY + 2 * DAY).isoformat()}
READER = {"Authorization": f"Bearer {READ}"}


@dataclass
class WithCalendar(Known):
    """A gateway's parts, with a calendar, and a Prefect that does not answer."""

    looking: PrefectApi = field(kw_only=True)
    calendar: Calendar = field(init=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.calendar = Calendar(self.ledger, self.settings)


@pytest.fixture
async def known(tmp_path: Path, away: PrefectApi) -> AsyncIterator[WithCalendar]:
    """A day's rule that ran the day before yesterday and was missed yesterday, and one that is due each minute."""
    settings = Settings(home=tmp_path, token=TOKEN, read_token=READ, api_patience=1)
    async with open_ledger(settings) as ledger:
        rules = [seen(rule, at=TODAY - 30 * DAY) for rule in (DAILY, MINUTELY)]
        await note(ledger, *rules, at=TODAY - 30 * DAY)
        await tell(ledger, run_of(DAILY, MISSED - DAY), *RAN)
        await tell(ledger, run_of(DAILY, MISSED, "held"), *HELD)
        yield WithCalendar(settings, ledger, looking=away)


@pytest.fixture
async def http(known: WithCalendar) -> AsyncIterator[httpx.AsyncClient]:
    """A client with the operator's token."""
    async with serving(known, calendar.router) as url:
        headers = {"Authorization": f"Bearer {TOKEN}"}
        async with httpx.AsyncClient(base_url=url, headers=headers, timeout=30) as client:
            yield client


async def test_the_calendar_of_some_days(http: httpx.AsyncClient, known: WithCalendar) -> None:
    """Single entries, days' rows, the queue and the version, to whoever may read; each answer is measured."""
    found = (await http.get(EVENTS, params=WINDOW, headers=READER)).json()
    assert [one["status"] for one in found["events"]][:2] == ["completed", "missed"]
    assert {one["source_ref"] for one in found["always_running"]} == {"pulse"}
    assert [one["run_id"] for one in found["stasis_queue"]] == ["held"]
    assert found["version"] == known.calendar.projection.version > 0
    assert found["last_event_at_utc"] is not None
    assert found["events"][1]["running"] is False
    built = known.samples.projection
    assert (built.builds, built.stasis_total) == (1, 1)
    assert built.events_total == len(found["events"])


async def test_only_what_is_asked_for(http: httpx.AsyncClient) -> None:
    """By rule, kind and status."""
    for only, refs in (
        ({"rule": "report", "status": "missed"}, {"report"}),
        ({"kind": "heartbeat"}, {"pulse"}),
        ({"rule": ["pulse", "report"], "kind": "cron", "status": ["completed", "failed"]}, {"report"}),
        ({"rule": "no-such-rule"}, set()),
    ):
        found = (await http.get(EVENTS, params={**WINDOW, **only})).json()  # type: ignore[dict-item]
        assert {one["source_ref"] for one in (*found["events"], *found["always_running"])} == refs


@pytest.mark.parametrize(
    ("query", "headers", "status"),
    [
        ({}, {}, 422),
        ({"start": "2026-03-01T00:00:00"}, {}, 422),
        ({"kind": "job"}, {}, 422),
        ({"status": "fine"}, {}, 422),
        ({"end": "1999-01-01T00:00:00Z"}, {}, 400),
        ({"end": "2999-01-01T00:00:00Z"}, {}, 400),
        ({"start": "0001-01-01T00:00:00+14:00"}, {}, 400),
        (WINDOW, {"Authorization": "Bearer wrong"}, 401),
    ],
)
async def test_what_is_wrong_is_a_problem_document(
    http: httpx.AsyncClient, query: dict[str, str], headers: dict[str, str], status: int
) -> None:
    """No times, naive ones, unknown kinds, times out of all calendars, no token."""
    answer = await http.get(EVENTS, params={**WINDOW, **query} if query else {}, headers=headers)
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"


async def ask(http: httpx.AsyncClient, event_id: str, **body: Any) -> httpx.Response:
    """Ask something of an entry."""
    return await http.post(f"{EVENTS}/{event_id}/action", json=body)


async def test_a_decision_about_a_missed_one_is_kept_while_prefect_is_away(
    http: httpx.AsyncClient, known: WithCalendar
) -> None:
    """Recorded with who and how; asked again it is the same; another decision comes too late: 409."""
    found = (await http.get(EVENTS, params=WINDOW)).json()
    (event_id,) = [one["event_id"] for one in found["stasis_queue"]]
    first = await ask(http, event_id, action="approve_backfill_run")
    assert first.status_code == 200, first.text
    assert (first.json()["status"], first.json()["run_id"], first.json()["source_ref"]) == ("done", "held", "report")
    again = await ask(http, event_id, action="approve_backfill_run")
    assert (again.status_code, again.json()["status"]) == (200, "already")
    other = await ask(http, event_id, action="delete_missed")
    assert (other.status_code, other.headers["content-type"]) == (409, "application/problem+json")
    async with known.ledger.read() as session:
        (kept,) = (await session.scalars(select(Resolution))).all()
    assert (kept.action, kept.resolved_by, kept.via) == ("approve_backfill_run", "operator", "api")
    after = (await http.get(EVENTS, params=WINDOW)).json()
    assert after["stasis_queue"] == []
    assert [one["status"] for one in after["events"] if one["event_id"] == event_id] == ["approved"]


async def test_a_missed_one_can_be_moved(http: httpx.AsyncClient, known: WithCalendar) -> None:
    """To an instant that is to come, and only with one."""
    event_id = f"report:{MISSED:%Y%m%dT%H%M%S.%fZ}"
    assert (await ask(http, event_id, action="reschedule")).status_code == 400
    past = (TODAY - 3 * DAY).isoformat()
    assert (await ask(http, event_id, action="reschedule", target=past)).status_code == 400
    target = (datetime.now(UTC) + HOUR).isoformat()
    moved = await ask(http, event_id, action="reschedule", target=target)
    assert moved.status_code == 200, moved.text
    found = (await http.get(EVENTS, params=WINDOW)).json()
    assert [one["status"] for one in found["events"] if one["event_id"] == event_id] == ["rescheduled"]


@pytest.mark.parametrize(
    ("event_id", "body", "status"),
    [
        ("nonsense", {"action": "delete_missed"}, 404),
        ("report:20010101T000000.000000Z", {"action": "delete_missed"}, 404),
        (f"report:{MISSED - DAY:%Y%m%dT%H%M%S.%fZ}", {"action": "delete_missed"}, 409),
        (f"pulse:{TODAY:%Y%m%d}", {"action": "delete_missed"}, 400),
        ("no-such-rule:20260301", {"action": "pause"}, 404),
        (f"pulse:{TODAY:%Y%m%d}", {"action": "pause", "target": "2099-01-01T00:00:00Z"}, 400),
        (f"pulse:{TODAY:%Y%m%d}", {"action": "pause"}, 503),
        (f"pulse:{TODAY:%Y%m%d}", {"action": "explode"}, 422),
        (f"pulse:{TODAY:%Y%m%d}", {"action": "pause", "and": "more"}, 422),
        ("report:k-!!!", {"action": "delete_missed"}, 404),
        ("report:k-gA", {"action": "delete_missed"}, 404),
    ],
)
async def test_what_cannot_be_done_is_said(
    http: httpx.AsyncClient, event_id: str, body: dict[str, Any], status: int
) -> None:
    """Unknown entries and rules, what is not missed, whole days, and Prefect away."""
    answer = await ask(http, event_id, **body)
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"


async def test_a_change_is_previewed_and_confirmed(http: httpx.AsyncClient) -> None:
    """Shown, confirmed, and kept for when Prefect answers again; what is stale or unknown is said."""
    changes = "/api/v1/ops/calendar/changes"
    shown = await http.post(changes, json={"type": "pause", "rule": "pulse"})
    assert shown.status_code == 200, shown.text
    preview = shown.json()
    assert (preview["confirmable"], len(preview["before"]), preview["after"]) == (True, 5, [])
    assert preview["version"] > 0
    confirmed = await http.post(f"{changes}/{preview['id']}/confirm")
    assert (confirmed.status_code, confirmed.headers["retry-after"]) == (503, "5")
    past = f"report:{MISSED:%Y%m%dT%H%M%S.%fZ}"
    for body, status in (
        ({"type": "skip", "event_id": past}, 409),
        ({"type": "skip", "event_id": "nonsense"}, 404),
        ({"type": "pause", "rule": "nobody"}, 404),
        ({"type": "schedule", "rule": "report"}, 400),
        ({"type": "pause", "rule": "pulse", "and": "more"}, 422),
        ({"type": "explode"}, 422),
    ):
        answer = await http.post(changes, json=body)
        assert answer.status_code == status, answer.text
        assert answer.headers["content-type"] == "application/problem+json"
    assert (await http.post(f"{changes}/no-such-id/confirm")).status_code == 404
    assert (await http.post(changes, json={"type": "pause", "rule": "pulse"}, headers=READER)).status_code == 403


async def test_a_reader_cannot_act(http: httpx.AsyncClient) -> None:
    """The read token reads."""
    answer = await http.post(f"{EVENTS}/pulse:20260301/action", json={"action": "pause"}, headers=READER)
    assert answer.status_code == 403


async def test_the_feed_takes_the_read_token_in_its_address(http: httpx.AsyncClient) -> None:
    """One series a rule; the operator's token is no good in an address, and without one there is no feed."""
    async with httpx.AsyncClient(base_url=http.base_url) as anybody:
        found = await anybody.get("/calendar.ics", params={"token": READ})
        assert found.status_code == 200
        assert found.headers["content-type"] == "text/calendar; charset=utf-8"
        series = icalendar.Calendar.from_ical(found.content).walk("VEVENT")
        assert sorted(str(one["UID"]) for one in series) == ["pulse@proactive-prefect", "report@proactive-prefect"]
        assert (await anybody.get("/calendar.ics", params={"token": TOKEN})).status_code == 401
        assert (await anybody.get("/calendar.ics")).status_code == 401


async def test_the_projection_keeps_up_by_itself(known: WithCalendar) -> None:
    """While it is watched, its version is that of the account soon after each write, without anybody asking."""
    import asyncio

    from tests.support import wait_until

    watching = asyncio.create_task(known.calendar.watch())
    try:
        await wait_until(lambda: known.calendar.projection.version > 0, what="the first look", every=0.02)
        before = known.calendar.projection.version
        await tell(known.ledger, run_of(DAILY, MISSED - 2 * DAY), *RAN)
        await wait_until(
            lambda: known.calendar.projection.version > before, what="the change is taken in", timeout=10, every=0.02
        )
    finally:
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
    assert known.calendar.state()["days"] == timedelta(days=63) / DAY
