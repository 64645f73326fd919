"""The calendar as people see it: what was, from the ledger; what will be, from the rules."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta

import pytest

from proactive_prefect.calendar.calendar import Calendar
from proactive_prefect.calendar.entries import CalendarEvents
from proactive_prefect.calendar.projection import Projection
from proactive_prefect.errors import InputError
from proactive_prefect.ledger.db import Ledger
from proactive_prefect.ledger.log import read_head
from proactive_prefect.ledger.occurrences import expect, settle
from proactive_prefect.ledger.resolutions import resolve
from proactive_prefect.settings import Settings
from tests.ledger.histories import NOON
from tests.support import wait_until

from .rulesets import (
    DAILY,
    DAY,
    HELD,
    HOOK,
    HOUR,
    MIDNIGHT,
    MINUTE,
    MINUTELY,
    RAN,
    asked,
    note,
    run_of,
    seen,
    tell,
)


async def look(ledger: Ledger, **only: tuple[str, ...]) -> CalendarEvents:
    """The day of the tests, as of noon."""
    return await Projection(ledger).events(asked(**only), NOON)


async def test_what_was_stands_beside_what_will_be(ledger: Ledger) -> None:
    """A past occurrence with its outcome and run, and the coming ones of the week, with stable ids and titles."""
    await note(ledger, seen(DAILY))
    await tell(ledger, run_of(DAILY, MIDNIGHT + 9 * HOUR), *RAN, messages=["", "", "", "all well"])
    found = await Projection(ledger).events(asked(end=MIDNIGHT + 3 * DAY), NOON)
    assert [(one.event_id, one.status) for one in found.events] == [
        ("report:20260301T090000.000000Z", "completed"),
        ("report:20260302T090000.000000Z", "scheduled"),
        ("report:20260303T090000.000000Z", "scheduled"),
    ]
    past = found.events[0]
    assert (past.title, past.source, past.source_ref) == ("report: the daily report", "cron", "report")
    assert (past.reason, past.started_at, past.ended_at) == (
        "all well",
        past.scheduled_at_utc + timedelta(seconds=2),
        past.scheduled_at_utc + timedelta(seconds=3),
    )
    assert past.actions == ("run_now", "pause")
    assert found.always_running == found.stasis_queue == found.running == []


async def test_what_conditions_rule_out_is_told_beforehand(ledger: Ledger) -> None:
    """With the reason that the gate will give; it stays in the calendar, since it will be there as skipped."""
    weekly = {**DAILY, "conditions": {"days_of_week": ["mon"]}}  # the day of the tests is a Sunday
    await note(ledger, seen(weekly))
    await tell(ledger, run_of(weekly, MIDNIGHT + 3 * DAY + 9 * HOUR), RAN[0])  # Prefect has made its run already
    found = await Projection(ledger).events(asked(end=MIDNIGHT + 4 * DAY), NOON)
    assert [(one.status, one.reason) for one in found.events if one.scheduled_at_utc > NOON] == [
        ("scheduled", ""),
        ("scheduled", "wrong_day: tue is not one of mon"),
        ("scheduled", "wrong_day: wed is not one of mon"),
    ]


async def test_an_occurrence_keeps_its_id_from_the_future_into_the_past(ledger: Ledger) -> None:
    """Scheduled, then due and not heard of yet, then running, then over: one row, one id, and no hole between."""
    await note(ledger, seen(DAILY))
    calendar, nine = Projection(ledger), MIDNIGHT + 9 * HOUR
    ref = run_of(DAILY, nine)
    statuses = []
    for now, states in ((nine - HOUR, ()), (nine + MINUTE, ()), (nine + MINUTE, RAN[:3]), (nine + HOUR, RAN)):
        if states:
            await tell(ledger, ref, *states)
        found = await calendar.events(asked(), now)
        assert [one.event_id for one in found.events] == ["report:20260301T090000.000000Z"]
        assert [one.status for one in found.running] == (["running"] if states == RAN[:3] else [])
        statuses.append(found.events[0].status)
    assert statuses == ["scheduled", "expected", "running", "completed"]


async def test_a_rule_that_is_always_running_is_one_row_a_day(ledger: Ledger) -> None:
    """A rule due each minute: not 1,440 rows, but one with the counts; what it missed stands by itself in the queue."""
    await note(ledger, seen(MINUTELY))
    for minute in range(20):
        await tell(ledger, run_of(MINUTELY, NOON - minute * MINUTE - MINUTE), *(HELD if minute == 3 else RAN))
    found = await look(ledger)
    assert found.events == []
    (row,) = found.always_running
    assert row.event_id == "pulse:20260301"
    assert row.counts == {"missed": 1, "scheduled": 720, "completed": 19}
    assert (row.status, row.always_running) == ("missed", True)
    assert (row.scheduled_at_utc, row.scheduled_until_utc) == (NOON - 20 * MINUTE, NOON + 11 * HOUR + 59 * MINUTE)
    (missed,) = found.stasis_queue
    assert missed.scheduled_at_utc == NOON - 4 * MINUTE
    assert missed.actions == ("approve_backfill_run", "reschedule", "delete_missed", "run_now", "pause")
    assert found.stasis_total == 1


@pytest.mark.parametrize("seconds", [-1, 0, 60, 119])
@pytest.mark.parametrize("end_at", [None, "2026-03-01T18:00:00Z"])
async def test_the_last_moments_of_a_frequent_rules_day_have_a_row(
    ledger: Ledger, end_at: str | None, seconds: int
) -> None:
    """All of it is due by then, and nothing is heard of it yet: so many are expected."""
    rule = {"kind": "heartbeat", "id": "pulse", "every": "5s"} | ({"end_at": end_at} if end_at else {})
    await note(ledger, seen(rule), at=MIDNIGHT)
    ends = MIDNIGHT + (18 * HOUR if end_at else DAY)
    calendar, now = Projection(ledger), ends + timedelta(seconds=seconds)
    (row,) = (await calendar.events(asked(), now)).always_running or (None,)
    count = (ends - (now - 2 * MINUTE)) // timedelta(seconds=5)
    if count > 12:
        assert row is not None
        assert (row.status, row.counts) == ("expected", {"expected": count})
        assert row.scheduled_until_utc == ends - timedelta(seconds=5)
    else:
        assert row is None


async def test_what_runs_once_more_is_among_what_runs_now(ledger: Ledger) -> None:
    """A run whose process died is unknown, and somebody lets it run again."""
    await note(ledger, seen(DAILY))
    ref = run_of(DAILY, MIDNIGHT + 9 * HOUR)
    for states, running in (
        ((*RAN[:3], "CRASHED/Crashed"), []),
        ((*RAN[:3], "CRASHED/Crashed", "SCHEDULED/AwaitingRetry", "RUNNING/Running"), ["report"]),
    ):
        await tell(ledger, ref, *states)
        assert [one.source_ref for one in (await look(ledger)).running] == running


async def test_the_watch_goes_on_whatever_fails(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As when what stands in the account cannot be shown: it is said, and tried again."""
    await note(ledger, seen(DAILY))
    calendar = Calendar(ledger, Settings())
    with monkeypatch.context() as broken:
        broken.setattr("proactive_prefect.calendar.projection.rows_of_day", lambda *_: 1 / 0)
        watching = asyncio.create_task(calendar.watch())
        await wait_until(lambda: "calendar.refresh failed: ZeroDivisionError" in caplog.text, what="it is said")
    try:
        await tell(ledger, run_of(DAILY, MIDNIGHT + 9 * HOUR), *RAN)
        await wait_until(lambda: calendar.state()["days"] and not watching.done(), what="the weeks around now are read")
    finally:
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)


async def test_what_is_kept_follows_each_change_of_the_account(ledger: Ledger) -> None:
    """Version, time of the latest event and the rows are those of the account, without reading the day again."""
    await note(ledger, seen(DAILY), seen(MINUTELY))
    calendar = Projection(ledger)
    before = await calendar.events(asked(), NOON)
    await tell(ledger, run_of(DAILY, MIDNIGHT + 9 * HOUR), *RAN)
    after = await calendar.events(asked(), NOON)
    assert after.version > before.version
    assert after.last_event_at_utc == MIDNIGHT + 9 * HOUR + timedelta(seconds=3)
    assert [one.status for one in after.events] == ["completed"]
    assert after.events[0].version == after.version
    assert (calendar.rebuilds, calendar.changes) == (1, 1)
    async with ledger.read() as session:
        head = await read_head(session)
    assert (after.version, after.last_event_seq) == (head.revision, head.seq)
    assert (await Projection(ledger).events(asked(), NOON)).model_dump() == after.model_dump()


async def test_a_change_that_no_event_tells_of_is_followed_too(ledger: Ledger) -> None:
    """A run that waits for its next try is not at work: Prefect's own business, logged by no event."""
    await note(ledger, seen(DAILY))
    calendar, ref = Projection(ledger), run_of(DAILY, MIDNIGHT + 9 * HOUR)
    await tell(ledger, ref, *RAN[:3])
    first = await calendar.events(asked(), NOON)
    await tell(ledger, ref, *RAN[:3], "SCHEDULED/AwaitingRetry")
    second = await calendar.events(asked(), NOON)
    assert [one.status for one in (*first.events, *second.events)] == ["running", "expected"]
    assert second.last_event_seq == first.last_event_seq
    assert second.version == first.version + 1


@pytest.mark.parametrize(("status", "actions"), [("paused", ("run_now", "resume")), ("disabled", ()), ("deleted", ())])
async def test_a_rule_that_is_not_active_has_no_future(ledger: Ledger, status: str, actions: tuple[str, ...]) -> None:
    """Paused, switched off or deleted: what was stays, nothing is foreseen, and only what makes sense is offered."""
    await note(ledger, seen(DAILY))
    await tell(ledger, run_of(DAILY, MIDNIGHT + 9 * HOUR), *RAN)
    calendar = Projection(ledger)
    week = asked(end=MIDNIGHT + 7 * DAY)
    assert len((await calendar.events(week, NOON)).events) == 7
    changed = [] if status == "deleted" else [seen(DAILY, status, at=NOON)]  # type: ignore[arg-type]
    await note(ledger, *changed, at=NOON)
    (past,) = (await calendar.events(week, NOON)).events
    assert (past.status, past.actions) == ("completed", actions)


async def test_a_new_schedule_holds_from_when_it_was_made(ledger: Ledger) -> None:
    """The future is that of the new version at once; the past stays as it was."""
    await note(ledger, seen(DAILY))
    await tell(ledger, run_of(DAILY, MIDNIGHT + 9 * HOUR), *RAN)
    calendar = Projection(ledger)
    await calendar.events(asked(), NOON)
    await note(ledger, seen({**DAILY, "cron": "30 11,18 * * *"}, at=NOON - MINUTE), at=NOON)
    found = await calendar.events(asked(), NOON)
    assert [one.scheduled_at_utc - MIDNIGHT for one in found.events] == [9 * HOUR, 18.5 * HOUR]


async def test_a_rescheduled_one_points_back(ledger: Ledger) -> None:
    """The old time says that it was moved, the new one from where; it is scheduled until its time comes."""
    await note(ledger, seen(DAILY))
    missed = await tell(ledger, run_of(DAILY, MIDNIGHT + 9 * HOUR), *HELD)
    target = NOON + 3 * HOUR
    async with ledger.write() as session:
        made = await expect(
            session, rule_id="report", kind="cron", owner_id="local", due=target, cause="manual", origin=missed.key
        )
        await settle(session, made)
        held = await expect(session, rule_id="report", kind="cron", owner_id="local", due=missed.due)
        await resolve(session, held, "reschedule", by="ann", via="api", at=NOON, target=target)
        await settle(session, held)
    old, new = (await look(ledger)).events
    assert (old.status, new.status) == ("rescheduled", "scheduled")
    assert (new.scheduled_at_utc, new.rescheduled_from) == (target, old.event_id)
    (later,) = [
        one for one in (await Projection(ledger).events(asked(), target + MINUTE)).events if one.rescheduled_from
    ]
    assert later.status == "expected"


async def test_one_sees_only_what_one_asks_for(ledger: Ledger) -> None:
    """By rule, by kind, by status, and together; a day's row counts if it has any of the statuses."""
    await note(ledger, seen(DAILY), seen(MINUTELY), seen(HOOK))
    await tell(ledger, run_of(DAILY, MIDNIGHT + 9 * HOUR), *HELD)
    await tell(ledger, run_of(MINUTELY, NOON - MINUTE), *RAN)
    await tell(ledger, run_of(HOOK, NOON - HOUR, delivery_id="a/b ü"), *RAN[:3], "FAILED/Failed")

    async def rows(**only: tuple[str, ...]) -> list[str]:
        found = await look(ledger, **only)
        return [one.source_ref for one in (*found.events, *found.always_running)]

    assert await rows() == ["report", "deploy", "pulse"]
    assert await rows(rules=("deploy", "pulse")) == ["deploy", "pulse"]
    assert await rows(kinds=("cron",)) == ["report"]
    assert await rows(statuses=("failed",)) == ["deploy"]
    assert await rows(statuses=("scheduled", "missed")) == ["report", "pulse"]
    assert await rows(kinds=("cron",), statuses=("failed",)) == []
    assert [one.source_ref for one in (await look(ledger, rules=("pulse",))).stasis_queue] == []


async def test_many_changes_at_once_are_read_anew(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a long time without a look the days are read whole, and the answer is the same."""
    monkeypatch.setattr("proactive_prefect.calendar.projection._MOST_CHANGES", 5)
    await note(ledger, seen(DAILY), seen(MINUTELY))
    calendar = Projection(ledger)
    await calendar.events(asked(), NOON)
    for minute in range(1, 9):
        await tell(ledger, run_of(MINUTELY, NOON - minute * MINUTE), *RAN)
    found = await calendar.events(asked(), NOON)
    assert calendar.rebuilds == 2
    assert found.model_dump() == (await look(ledger)).model_dump()


async def test_memory_is_bounded(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond the bound the days that nobody asked for lately are forgotten, and read again when somebody does."""
    monkeypatch.setattr("proactive_prefect.calendar.projection._MOST_KEPT", 2)
    await note(ledger, seen(DAILY))
    for day in range(5):
        await tell(ledger, run_of(DAILY, MIDNIGHT - day * DAY + 9 * HOUR), *RAN)
    calendar = Projection(ledger)
    for day in range(5):
        found = await calendar.events(asked(MIDNIGHT - day * DAY), NOON)
        assert [one.status for one in found.events] == ["completed"]
        assert calendar._weight <= 2
    again = await calendar.events(asked(), NOON)
    assert [one.status for one in again.events] == ["completed"]
    assert calendar.rebuilds == 6


@pytest.mark.parametrize("length", [timedelta(0), -DAY, 401 * DAY])
async def test_a_time_that_is_none_is_refused(ledger: Ledger, length: timedelta) -> None:
    """Empty, backwards or longer than a year."""
    with pytest.raises(InputError, match="400 days"):
        await Projection(ledger).events(replace(asked(), end=MIDNIGHT + length), NOON)
