"""The feed for calendar applications, read by a program that knows nothing of ours."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import Any

import icalendar
import pytest
import recurring_ical_events
from hypothesis import given, settings
from hypothesis import strategies as st

from proactive_prefect.calendar.ical import feed
from proactive_prefect.calendar.plans import Plan, plan_of
from proactive_prefect.calendar.recurrence import SPELLED_OUT
from proactive_prefect.ledger.tables import RuleVersion
from proactive_prefect.rules.timing import due_between

from .rulesets import CREATED, DAY, seen

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
ZONES = ("Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kolkata", "America/Havana", "UTC")


def plan(rule: dict[str, Any], status: Any = "active") -> Plan:
    """The plan of a rule."""
    one = seen(rule, status)
    made = plan_of(
        RuleVersion(id=1, rule_id=one.rule_id, kind=one.kind, since=CREATED, status=one.status, snapshot=one.snapshot)
    )
    assert made is not None
    return made


def cron(expression: str, zone: str = "UTC", **more: Any) -> dict[str, Any]:
    """A cron rule."""
    return {"kind": "cron", "id": "rule", "cron": expression, "timezone": zone, **more}


def expand(text: bytes, start: datetime, end: datetime) -> list[datetime | date]:
    """Every start that an independent reader finds in the feed."""
    found = recurring_ical_events.of(icalendar.Calendar.from_ical(text)).between(start, end)
    starts = [event["DTSTART"].dt for event in found]
    return sorted({at.astimezone(UTC) if isinstance(at, datetime) else at for at in starts})


@pytest.mark.parametrize("zone", ZONES)
@pytest.mark.parametrize(
    "expression",
    [
        "0 9 * * mon-fri",
        "30 2 * * *",  # in the gap of most zones
        "30 1 * * *",  # in the overlap of some
        "15 5,17 * * *",
        "0 0 l * *",
        "0 12 * * mon#1",
        "0 6 * * l5",
        "20 */6 1-7 jan-jun *",
        "0 0 29 2 *",
    ],
)
def test_a_series_expands_to_the_due_times_of_two_years(expression: str, zone: str) -> None:
    """Over every clock change: the instants at which Prefect fires, and no others."""
    made = plan(cron(expression, zone))
    start, end = NOW, NOW + 2 * 365 * DAY
    if expression == "0 0 29 2 *":
        end = NOW + 4 * 365 * DAY
    text = feed([made], NOW)
    assert made.timing is not None
    assert expand(text, start, end) == due_between(made.timing, start, end, 10_000)
    assert text.count(b"BEGIN:VEVENT") == 1
    assert b"RRULE:" in text
    zones = icalendar.Calendar.from_ical(text).walk("VTIMEZONE")
    assert [str(one["TZID"]) for one in zones] == ([] if zone == "UTC" else [zone])


@pytest.mark.parametrize(
    "rule",
    [
        cron("30 4 1,15 * fri"),  # either is enough: no rule of recurrence says that
        cron("30 2,3 * * *", "Europe/Berlin"),  # one is moved in the night of the change, where the other may be
        cron("15 1,2,3 * * *", "America/New_York"),
        cron("15 0,1,3 * * *", "America/Havana"),
        cron("0 1,2 * * *", "Europe/Berlin"),
    ],
)
def test_what_no_rule_of_recurrence_says_is_spelled_out(rule: dict[str, Any]) -> None:
    """For three months ahead; the feed is fetched again long before that."""
    made, end = plan(rule), NOW - DAY + SPELLED_OUT - DAY
    assert made.timing is not None
    assert expand(feed([made], NOW), NOW, end) == due_between(made.timing, NOW, end, 10_000)


@pytest.mark.parametrize("every", ["2h", "6h", "5h", "1d", "3d", "2h30m", "7201s"])
def test_intervals_expand_to_their_due_times(every: str) -> None:
    """Counted from their anchor, whatever the clocks do."""
    made, end = plan({"kind": "heartbeat", "id": "rule", "every": every, "splay": "90s"}), NOW + 60 * DAY
    assert made.timing is not None
    assert expand(feed([made], NOW), NOW, end) == due_between(made.timing, NOW, end, 10_000)


@pytest.mark.parametrize(
    ("rule", "weekdays"),
    [
        ({"kind": "heartbeat", "id": "rule", "every": "5m"}, set(range(7))),
        (cron("*/10 9-17 * * mon-fri", "Europe/Berlin"), set(range(5))),
    ],
)
def test_what_is_due_very_often_is_an_entry_a_day(rule: dict[str, Any], weekdays: set[int]) -> None:
    """Not hundreds of entries a day on somebody's phone; how often it is due is in the text."""
    text = feed([plan(rule)], NOW)
    found = expand(text, NOW, NOW + 28 * DAY)
    assert all(not isinstance(at, datetime) for at in found)
    days = [NOW.date() + timedelta(days=number) for number in range(28)]
    assert [at for at in found if at in days] == [day for day in days if day.weekday() in weekdays]


def test_a_rule_begins_and_ends_when_it_says() -> None:
    """Nothing before `start_at`, nothing from `end_at` on."""
    made = plan(cron("0 9 * * *", "Europe/Berlin", start_at="2026-03-05T08:00:00Z", end_at="2026-03-08T08:00:00Z"))
    assert expand(feed([made], NOW), NOW - 30 * DAY, NOW + 30 * DAY) == [
        datetime(2026, 3, day, 8, tzinfo=UTC) for day in (5, 6, 7)
    ]


def test_what_will_not_run_is_not_in_the_feed() -> None:
    """Paused, disabled, over, or only when called: no entries; and an empty feed is a feed."""
    rules = [
        plan(cron("0 9 * * *"), "paused"),
        plan(cron("0 9 * * *"), "disabled"),
        plan(cron("0 9 * * *", end_at="2026-02-01T00:00:00Z")),
        plan({"kind": "webhook", "id": "hook"}),
        plan({"kind": "skill", "id": "once", "skill": "s", "schedule": {"type": "once", "at": "2026-01-01T00:00:00Z"}}),
    ]
    text = feed(rules, NOW)
    assert icalendar.Calendar.from_ical(text).walk("VEVENT") == []
    assert text.startswith(b"BEGIN:VCALENDAR")


def test_text_of_rules_stays_text() -> None:
    """Line breaks and separators in a description make no lines of their own; long lines are folded."""
    hostile = "a\r\nEND:VEVENT\nSUMMARY:x; y, z \\ " + "ü" * 200
    text = feed([plan(cron("0 9 * * *", description=hostile))], NOW)
    assert text.count(b"END:VEVENT") - text.count(b"nEND:VEVENT") == 1
    assert all(len(line) <= 75 for line in text.split(b"\r\n"))
    (event,) = icalendar.Calendar.from_ical(text).walk("VEVENT")
    assert "END:VEVENT" in str(event["DESCRIPTION"])
    assert str(event["SUMMARY"]) == "rule"


@settings(max_examples=60, deadline=None)
@given(
    minute=st.integers(0, 59),
    hours=st.sets(st.integers(0, 23), min_size=1, max_size=4),
    weekdays=st.one_of(st.just("*"), st.sets(st.integers(0, 6), min_size=1).map(lambda days: ",".join(map(str, days)))),
    zone=st.sampled_from(ZONES),
)
def test_any_time_of_day_expands_alike(minute: int, hours: set[int], weekdays: str, zone: str) -> None:
    """Whatever the hours, over the clock changes of a spring."""
    made = plan(cron(f"{minute} {','.join(map(str, sorted(hours)))} * * {weekdays}", zone))
    end = NOW + 60 * DAY
    assert made.timing is not None
    assert expand(feed([made], NOW), NOW, end) == due_between(made.timing, NOW, end, 10_000)
