"""What is due within a day, by a short way: the same as by walking through it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proactive_prefect.rules.policies import Dst
from proactive_prefect.rules.spans import due_within
from proactive_prefect.rules.timing import CronTiming, IntervalTiming, OnceTiming, Timing, clock_changes, due_between

# With gaps of an hour, half an hour and a whole day; at midnight; south of the equator; with changes for Ramadan; none.
ZONES = (
    "Europe/Berlin",
    "America/New_York",
    "Australia/Lord_Howe",
    "Pacific/Apia",
    "Africa/Casablanca",
    "America/Havana",
    "Asia/Kolkata",
    "UTC",
)
CRONS = (
    "*/5 * * * *",
    "0 9 * * mon-fri",
    "30 2 * * *",
    "15 0,1,2,3 * * *",
    "0 0 l * *",
    "0 12 * * mon#1",
    "0 0 1,15 * fri",
    "30 23 * * sun",
    "7 */3 29 2 *",
    "0 6 * * l5",
    "@hourly",
)
YEARS = datetime(2010, 1, 1, tzinfo=UTC), datetime(2040, 1, 1, tzinfo=UTC)
MINUTE = timedelta(minutes=1)


def instants() -> st.SearchStrategy[datetime]:
    """Instants of thirty years, many of them near a clock change."""
    anywhere = st.integers(0, int((YEARS[1] - YEARS[0]) / MINUTE)).map(lambda minutes: YEARS[0] + minutes * MINUTE)
    changes = [change.at for zone in ZONES for change in clock_changes(zone, YEARS[0], YEARS[0] + timedelta(days=800))]
    near = st.tuples(st.sampled_from(changes), st.integers(-3000, 3000)).map(lambda two: two[0] + two[1] * MINUTE)
    return st.one_of(anywhere, near, near.map(lambda at: at.replace(hour=0, minute=0)))


def timings() -> st.SearchStrategy[Timing]:
    """Of all sorts, with and without a splay."""
    splays = st.sampled_from([None, timedelta(seconds=59)])
    crons = st.builds(
        lambda cron, zone, splay: CronTiming(cron, zone, Dst(), "some-rule" if splay else None, splay),
        st.sampled_from(CRONS),
        st.sampled_from(ZONES),
        splays,
    )
    anchors = instants()
    intervals = st.builds(
        lambda minutes, anchor: IntervalTiming(minutes * MINUTE, anchor), st.integers(7, 5000), anchors
    )
    return st.one_of(crons, crons, intervals, st.builds(OnceTiming, instants()))


@settings(max_examples=300, deadline=None)
@given(timing=timings(), since=instants(), length=st.integers(0, 2880))
def test_it_is_what_walking_finds(timing: Timing, since: datetime, length: int) -> None:
    """Count, first, last and instants, in every timezone, over every clock change."""
    until = since + length * MINUTE
    walked = due_between(timing, since, until, 10_000)
    found = due_within(timing, since, until, 10_000)
    assert (found.count, list(found.instants)) == (len(walked), walked)
    assert (found.first, found.last) == ((walked[0], walked[-1]) if walked else (None, None))


@pytest.mark.parametrize("zone", ZONES)
def test_days_put_together_leave_nothing_out(zone: str) -> None:
    """A year, day by day: each due time is in exactly one day."""
    timing = CronTiming("20 */4 * * *", zone, Dst())
    start = datetime(2026, 1, 1, tzinfo=UTC)
    days = [start + timedelta(days=number) for number in range(366)]
    by_day = [at for since, until in pairwise(days) for at in due_within(timing, since, until, 100).instants]
    assert by_day == due_between(timing, days[0], days[-1], 10_000)


def test_what_is_more_than_is_wanted_is_counted_only() -> None:
    """1,440 a day: their number, the first and the last, without a list of them."""
    day = datetime(2026, 3, 1, tzinfo=UTC)
    found = due_within(CronTiming("* * * * *", "Europe/Berlin", Dst()), day, day + timedelta(days=1), 12)
    assert (found.count, found.instants) == (1440, ())
    assert (found.first, found.last) == (day, day + timedelta(hours=23, minutes=59))


def test_more_than_two_days_are_refused() -> None:
    """It is made for days."""
    day = datetime(2026, 3, 1, tzinfo=UTC)
    with pytest.raises(ValueError, match="two days"):
        due_within(OnceTiming(day), day, day + timedelta(days=3), 1)
