"""Which due times should have been kept: pure arithmetic over what a rule was at each time."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proactive_prefect.ledger.tables import RuleVersion
from proactive_prefect.missed.expected import SETTLING, Expectation, expected
from proactive_prefect.rules.models import CronRule, HeartbeatRule, Rule, to_snapshot
from proactive_prefect.rules.timing import due_between

NOON = datetime(2026, 3, 2, 12, 0, tzinfo=UTC)
HOUR = timedelta(hours=1)
ACTION = {"type": "python", "call": "flows.actions:look"}


def hourly(**keys: Any) -> Rule:
    """A heartbeat at each full hour."""
    return HeartbeatRule.model_validate({"id": "disk", "every": "1h", "action": ACTION, **keys})


def version(rule: Rule, since: datetime, status: str = "active") -> RuleVersion:
    """A version of the rule."""
    return RuleVersion(
        rule_id=rule.id, kind=rule.kind, since=since, status=status, deployment_id="d", snapshot=to_snapshot(rule)
    )


def look(
    *versions: RuleVersion, since: datetime = NOON - 24 * HOUR, now: datetime = NOON, known: Sequence[datetime] = ()
) -> Expectation:
    """What was expected, with room for all of it."""
    seconds = frozenset(int(at.timestamp()) for at in known)
    return expected(versions, since, now, known=seconds, limit=1000)


def hours(found: Expectation) -> list[int]:
    """How many hours before noon each was due."""
    return [round((NOON - one.at) / HOUR) for one in found.due]


def test_ten_hours_of_an_hourly_rule_are_ten_due_times() -> None:
    """The one whose grace is not over yet is not among them."""
    found = look(version(hourly(), NOON - 100 * HOUR), since=NOON - 10 * HOUR)
    assert hours(found) == [10, 9, 8, 7, 6, 5, 4, 3, 2, 1]
    assert not found.omitted


def test_what_is_accounted_for_is_not_expected_again() -> None:
    """Whatever became of it."""
    found = look(version(hourly(), NOON - 100 * HOUR), since=NOON - 4 * HOUR, known=[NOON - 3 * HOUR, NOON - HOUR])
    assert hours(found) == [4, 2]


def test_nothing_is_expected_before_a_rule_was_made() -> None:
    """Nor in the moments after, in which Prefect makes its first runs ready."""
    made = NOON - 3 * HOUR
    assert hours(look(version(hourly(), made - SETTLING / 2))) == [2, 1]
    assert hours(look(version(hourly(), made - SETTLING))) == [3, 2, 1]


@pytest.mark.parametrize("status", ["paused", "disabled", "deleted", "unseen"])
def test_nothing_is_expected_of_a_rule_that_is_not_active(status: str) -> None:
    """From before the change on, if the grace of a due time was not over yet."""
    rule = hourly(grace="10m")
    stopped = NOON - 5 * HOUR + timedelta(minutes=5)
    again = NOON - 2 * HOUR - timedelta(minutes=5)
    versions = [version(rule, NOON - 8 * HOUR - SETTLING), version(rule, stopped, status), version(rule, again)]
    assert hours(look(*versions)) == [8, 7, 6, 2, 1]


def test_each_version_of_an_edited_rule_counts_for_its_own_time() -> None:
    """Due times that only the other version has are nobody's."""
    before, after = hourly(), hourly(every="2h")
    edited = NOON - 5 * HOUR - timedelta(minutes=30)
    found = look(version(before, NOON - 9 * HOUR - SETTLING), version(after, edited))
    assert hours(found) == [9, 8, 7, 6, 4, 2]
    assert [one.rule for one in found.due] == [before] * 4 + [after] * 2


def test_an_edit_that_leaves_the_times_alone_loses_no_due_time() -> None:
    """Prefect keeps the runs that it has made."""
    edited = NOON - 2 * HOUR - timedelta(seconds=1)
    found = look(version(hourly(), NOON - 20 * HOUR), version(hourly(description="new"), edited), since=NOON - 3 * HOUR)
    assert hours(found) == [3, 2, 1]


def test_start_and_end_bound_what_is_expected() -> None:
    """start_at counts, end_at does not."""
    rule = hourly(start_at=(NOON - 5 * HOUR).isoformat(), end_at=(NOON - 2 * HOUR).isoformat())
    assert hours(look(version(rule, NOON - 100 * HOUR))) == [5, 4, 3]


def test_what_is_older_than_the_lookback_is_counted_and_said() -> None:
    """How many, and since when; none is lost in between."""
    found = look(version(hourly(lookback="6h"), NOON - 100 * HOUR), since=NOON - 20 * HOUR)
    assert hours(found) == [6, 5, 4, 3, 2, 1]
    [left] = found.omitted
    assert (left.since, left.until, left.count) == (NOON - 20 * HOUR, NOON - 6 * HOUR, 14)
    assert "lookback of 6h" in left.reason


def test_of_too_many_the_oldest_are_left_out_and_said() -> None:
    """The limit is for one rule and one round."""
    found = expected([version(hourly(), NOON - 100 * HOUR)], NOON - 20 * HOUR, NOON, limit=5)
    assert hours(found) == [5, 4, 3, 2, 1]
    [left] = found.omitted
    assert (left.since, left.until, left.count) == (NOON - 20 * HOUR, NOON - 5 * HOUR, 15)


def test_of_a_frequent_rule_the_newest_are_kept_however_long_the_outage_was() -> None:
    """Up to the last due time whose grace is over; with those left out, none is lost."""
    rule = hourly(every="5s", grace="1s")
    found = expected([version(rule, NOON - 100 * HOUR)], NOON - 40 * HOUR, NOON, limit=1000)
    assert found.due[-1].at == NOON - timedelta(seconds=5)
    [left] = found.omitted
    assert (left.since, left.until) == (NOON - 40 * HOUR, found.due[0].at)
    assert left.count + len(found.due) == 40 * 720


def test_weeks_of_a_rule_that_is_due_each_second_are_counted_at_once() -> None:
    """Not walked through: the gateway has other things to do meanwhile."""
    rule = hourly(every="1s", grace="1s", lookback="30d")
    began = time.perf_counter()
    found = expected([version(rule, NOON - 9999 * HOUR)], NOON - 2400 * HOUR, NOON, limit=1000)
    took = time.perf_counter() - began
    too_old, too_many = found.omitted
    assert (too_old.until, too_many.since) == (NOON - 720 * HOUR, NOON - 720 * HOUR)
    assert too_old.count + too_many.count + len(found.due) == 2400 * 3600 - 1  # the grace of the last is not over
    assert took < 2


@given(
    every=st.sampled_from([7, 10, 61]),
    cron=st.booleans(),
    minutes=st.integers(1, 5000),
    known=st.sets(st.integers(0, 5000), max_size=200),
    limit=st.integers(1, 40),
    edited=st.integers(0, 5000),
)
def test_what_is_due_and_what_is_left_out_cover_the_time(
    every: int, cron: bool, minutes: int, known: set[int], limit: int, edited: int
) -> None:
    """The latest of all, and the number of the others, over all versions of the rule."""
    rule = hourly(every=f"{every}m", lookback="3660d", grace="0s")
    cronned = CronRule.model_validate({"id": "disk", "cron": "*/13 * * * *", "lookback": "3660d", "action": ACTION})
    since, at = NOON - minutes * timedelta(minutes=1), NOON - timedelta(minutes=edited, seconds=30)
    after = cronned.model_copy(update={"grace": timedelta(0)}) if cron else rule
    versions = [version(rule, NOON - 9999 * HOUR), version(after, at)]
    seconds = frozenset(int((NOON - timedelta(minutes=one)).timestamp()) for one in known)
    assert rule.timing
    assert after.timing
    there = due_between(rule.timing, since, at, 10_000)
    there += due_between(after.timing, max(since, at + (SETTLING if cron else timedelta(0))), NOON, 10_000)
    there = [one for one in there if int(one.timestamp()) not in seconds]
    found = expected(versions, since, NOON, known=seconds, limit=limit)
    assert [one.at for one in found.due] == there[-limit:]
    assert sum(one.count for one in found.omitted) == max(0, len(there) - limit)
    assert [one.since for one in found.omitted] == ([there[0]] if len(there) > limit else [])


@pytest.mark.parametrize(
    ("day", "count"),
    [(datetime(2026, 3, 29, tzinfo=UTC), 23), (datetime(2026, 10, 25, tzinfo=UTC), 24)],
)
def test_a_change_of_the_clock_makes_no_false_misses(day: datetime, count: int) -> None:
    """In Berlin's short day 23 local hours are due, in its long day 24: one of the two that are called two o'clock."""
    rule = CronRule.model_validate({"id": "c", "cron": "0 * * * *", "timezone": "Europe/Berlin", "action": ACTION})
    begins = day - timedelta(hours=1 if day.month == 3 else 2)
    ends = begins + timedelta(hours=23 if day.month == 3 else 25)
    found = look(version(rule, begins - 24 * HOUR), since=begins, now=ends + timedelta(seconds=59))
    assert len(found.due) == count


def test_a_rule_that_cannot_be_read_any_more_is_left_alone() -> None:
    """As one that a newer version has written."""
    broken = version(hourly(), NOON - 9 * HOUR).model_copy(update={"snapshot": '{"kind": "heartbeat"}'})
    assert look(broken) == Expectation()


@given(
    changes=st.lists(
        st.tuples(st.integers(0, 4000), st.sampled_from(["active", "paused", "deleted"]), st.sampled_from([7, 10, 60])),
        min_size=1,
        max_size=6,
        unique_by=lambda change: change[0],
    ),
    looks=st.lists(st.integers(0, 5000), min_size=1, max_size=6),
    grace=st.integers(0, 90),
)
def test_rounds_at_any_times_find_what_one_round_finds(
    changes: list[tuple[int, str, int]], looks: list[int], grace: int
) -> None:
    """However often somebody looks, each due time is found once, and nothing else is.

    Minutes since a beginning; each round goes on where the one before it stopped.
    """
    start = NOON - timedelta(minutes=5000)
    rules = {n: hourly(every=f"{n}m", grace=f"{grace}m", lookback="3660d") for n in (7, 10, 60)}
    versions = [
        version(rules[every], start + timedelta(minutes=at, seconds=1), status) for at, status, every in sorted(changes)
    ]
    at_once = expected(versions, start, NOON, limit=10_000)
    found: list[datetime] = []
    since = start
    for now in [*(start + timedelta(minutes=one) for one in sorted(looks)), NOON]:
        known = frozenset(int(at.timestamp()) for at in found)
        there = [one for one in versions if one.since <= now]
        found += [one.at for one in expected(there, since, now, known=known, limit=10_000).due]
        since = max(since, now - timedelta(minutes=grace, seconds=60))
    assert sorted(found) == [one.at for one in at_once.due]
    for one in at_once.due:
        assert one.rule.timing is not None
        assert due_between(one.rule.timing, one.at, one.at + timedelta(seconds=1), 2) == [one.at]
