"""When a rule is due: pure functions of an instant. tests/rules/test_prefect_agrees.py holds them against Prefect."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proactive_prefect.rules import (
    ClockChange,
    CronTiming,
    IntervalTiming,
    OnceTiming,
    check_cron,
    clock_changes,
    due_between,
    next_due,
)
from proactive_prefect.rules.cron import five_fields
from proactive_prefect.rules.policies import Dst
from proactive_prefect.rules.timing import Timing, splay_offset

ZONES = (
    "UTC",
    "America/New_York",
    "Europe/Berlin",
    "Australia/Lord_Howe",
    "Asia/Tokyo",
    "Africa/Casablanca",
    "America/Santiago",
    "Pacific/Apia",
    "Asia/Kathmandu",
)
CRONS = (
    "* * * * *",
    "30 2 * * *",
    "10,59 1-2 * * *",
    "0 */3 * * *",
    "0 9 * * mon-fri",
    "0 0 1 * *",
    "@weekly",
    "0 12 29 2 *",
)
instants = st.datetimes(datetime(2011, 6, 1), datetime(2036, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001
crons = st.builds(
    CronTiming,
    st.sampled_from(CRONS),
    st.sampled_from(ZONES),
    st.just(Dst()),
    st.just("rule"),
    st.sampled_from([None, timedelta(seconds=59)]),
)
intervals = st.builds(
    IntervalTiming,
    st.timedeltas(timedelta(seconds=1), timedelta(days=40)),
    instants,
    splay_key=st.sampled_from(["a", "b"]),
    splay=st.sampled_from([None, timedelta(minutes=7)]),
)
timings = st.one_of(crons, intervals, st.builds(OnceTiming, instants))


@given(timings, instants, st.integers(0, 40))
def test_next_due_is_strictly_after_and_strictly_increasing(timing: Timing, after: datetime, count: int) -> None:
    """No instant comes twice, none is before the asked one, and all are in UTC."""
    due = next_due(timing, after, count)
    assert len(due) <= count
    assert all(instant.tzinfo is UTC and instant > after for instant in due)
    assert all(earlier < later for earlier, later in pairwise(due))


@given(timings, instants, st.timedeltas(timedelta(0), timedelta(days=3)))
def test_due_between_is_next_due_cut_at_the_end(timing: Timing, since: datetime, length: timedelta) -> None:
    """The window counts its start and not its end, whichever way it is asked for."""
    until = since + length
    between = due_between(timing, since, until, 60)
    upcoming = next_due(timing, since - timedelta(microseconds=1), 60)
    assert between == [due for due in upcoming if due < until]


@given(timings, instants, st.integers(1, 20))
def test_asking_again_from_the_last_due_goes_on_where_it_ended(timing: Timing, after: datetime, count: int) -> None:
    """A page at a time or all at once: the same instants, also across changes of the clock."""
    once = next_due(timing, after, 2 * count)
    first = next_due(timing, after, count)
    rest = next_due(timing, first[-1], count) if first else []
    assert first + rest == once


@given(crons, instants)
def test_cron_is_due_on_the_wall_clock_or_moved_out_of_a_gap(timing: CronTiming, after: datetime) -> None:
    """What is not due at its own local time is due as far from it as the clock was moved."""
    zone = ZoneInfo(timing.timezone)
    minutes = five_fields(timing.cron).split()[0]
    for due in next_due(timing, after, 5):
        local = due.astimezone(zone)
        near = clock_changes(timing.timezone, due - timedelta(days=2), due + timedelta(days=2))
        if minutes.isdigit() and not near:
            assert local.minute == int(minutes)


@pytest.mark.parametrize(
    ("zone", "year", "expected"),
    [
        ("America/New_York", 2027, [("gap", "2027-03-14T07:00", 60), ("overlap", "2027-11-07T06:00", 60)]),
        ("Europe/Berlin", 2027, [("gap", "2027-03-28T01:00", 60), ("overlap", "2027-10-31T01:00", 60)]),
        ("Australia/Lord_Howe", 2027, [("overlap", "2027-04-03T15:00", 30), ("gap", "2027-10-02T15:30", 30)]),
        ("Asia/Tokyo", 2027, []),
        ("UTC", 2027, []),
        (
            "Pacific/Apia",
            2011,
            [("overlap", "2011-04-02T14:00", 60), ("gap", "2011-09-24T14:00", 60), ("gap", "2011-12-30T10:00", 1440)],
        ),
    ],
)
def test_clock_changes_are_the_gaps_and_overlaps_of_a_year(
    zone: str, year: int, expected: list[tuple[str, str, int]]
) -> None:
    """Each with its instant and the local times that are missing or come twice."""
    changes = clock_changes(zone, datetime(year, 1, 1, tzinfo=UTC), datetime(year + 1, 1, 1, tzinfo=UTC))
    found = [(change.kind, f"{change.at:%Y-%m-%dT%H:%M}", change.length // timedelta(minutes=1)) for change in changes]
    assert found == expected


def test_a_clock_change_names_the_local_times() -> None:
    """The gap in New York is from two to three in the morning."""
    (change,) = clock_changes("America/New_York", datetime(2027, 3, 1, tzinfo=UTC), datetime(2027, 4, 1, tzinfo=UTC))
    assert change == ClockChange(
        datetime(2027, 3, 14, 7, tzinfo=UTC),
        "gap",
        datetime(2027, 3, 14, 2),  # noqa: DTZ001 - local times have no zone
        datetime(2027, 3, 14, 3),  # noqa: DTZ001
    )


def test_a_window_of_clock_changes_counts_its_start_and_not_its_end() -> None:
    """A change at the very start of the window is in it, one at its end is in the next."""
    at = datetime(2027, 3, 14, 7, tzinfo=UTC)
    day = timedelta(days=1)
    assert len(clock_changes("America/New_York", at, at + day)) == 1
    assert clock_changes("America/New_York", at - day, at) == []
    assert clock_changes("America/New_York", at, at) == []


def test_a_day_that_a_zone_left_out_runs_with_its_neighbour() -> None:
    """Samoa had no 30 December 2011: its run falls together with another's, and the days around it are as always."""
    timing = CronTiming("0 12 * * *", "Pacific/Apia", Dst())
    due = due_between(timing, datetime(2011, 12, 28, tzinfo=UTC), datetime(2012, 1, 1, tzinfo=UTC), 10)
    assert [f"{instant.astimezone(ZoneInfo('Pacific/Apia')):%d %H}" for instant in due] == [
        "28 12",
        "29 12",
        "31 12",
        "01 12",
    ]


def test_a_splay_is_the_same_every_time_and_differs_between_rules() -> None:
    """It depends on the rule's id alone, is a whole number of seconds, and never exceeds what was asked for."""
    splay = timedelta(minutes=5)
    offsets = [splay_offset(f"rule-{number}", splay) for number in range(200)]
    assert offsets == [splay_offset(f"rule-{number}", splay) for number in range(200)]
    assert len(set(offsets)) > 100
    assert all(timedelta(0) <= offset <= splay and offset % timedelta(seconds=1) == timedelta(0) for offset in offsets)
    # Pinned: another offset would move every rule that is deployed.
    assert splay_offset("disk", splay) == timedelta(seconds=44)


def test_once_is_due_once() -> None:
    """Before its instant it is due at it; after that, never."""
    at = datetime(2027, 1, 1, tzinfo=UTC)
    assert next_due(OnceTiming(at), at - timedelta(seconds=1), 5) == [at]
    assert next_due(OnceTiming(at), at, 5) == []
    assert due_between(OnceTiming(at), at, at + timedelta(seconds=1), 5) == [at]


def test_an_interval_reaches_back_before_its_anchor() -> None:
    """The anchor is a phase, not a start: a rule's start_at is that."""
    timing = IntervalTiming(timedelta(hours=1), datetime(2030, 1, 1, 0, 20, tzinfo=UTC))
    assert next_due(timing, datetime(2027, 1, 1, tzinfo=UTC), 1) == [datetime(2027, 1, 1, 0, 20, tzinfo=UTC)]


@pytest.mark.parametrize(
    ("written", "given_to_prefect"),
    [
        ("@hourly", "0 * * * *"),
        ("@daily", "0 0 * * *"),
        ("@midnight", "0 0 * * *"),
        ("@weekly", "0 0 * * 0"),
        ("@monthly", "0 0 1 * *"),
        ("@yearly", "0 0 1 1 *"),
        (" @Annually ", "0 0 1 1 *"),
        ("  0   9 * *  MON-FRI ", "0 9 * * mon-fri"),
        ("00 09 * * 7", "00 09 * * 7"),
        ("*/5 8-18/2 1,15,L jan-mar sun", "*/5 8-18/2 1,15,l jan-mar sun"),
        ("0 9 * * mon#1,fri#5", "0 9 * * mon#1,fri#5"),
    ],
)
def test_cron_is_handed_to_prefect_in_five_plain_fields(written: str, given_to_prefect: str) -> None:
    """Names of whole expressions, capitals and spaces are ours; what Prefect gets has none of them."""
    check_cron(written)
    assert CronTiming(written, "UTC", Dst()).prefect_cron == given_to_prefect


@given(st.text(max_size=30) | st.from_regex(r"[0-9*/,a-z#L@?-]{1,6}( [0-9*/,a-z#L?-]{1,6}){0,6}", fullmatch=True))
def test_check_cron_answers_any_text_with_yes_or_what_is_allowed(text: str) -> None:
    """Whatever is written, it is either a cron expression that comes round or a ValueError that says what is."""
    refusal = ""
    try:
        check_cron(text)
    except ValueError as problem:
        refusal = str(problem)
    if refusal:
        assert "; allowed: " in refusal
    else:
        assert next_due(CronTiming(text, "UTC", Dst()), datetime(2027, 1, 1, tzinfo=UTC), 1)
