"""How often, and when, something is due within a day: the instants of `timing`, without walking through all of them.

A calendar asks for a month of a thousand rules, some of them due each minute. What is asked here costs a few lookups a
day and rule; only a day on which a timezone's clock changes is gone through time by time.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from functools import lru_cache
from typing import assert_never
from zoneinfo import ZoneInfo

from croniter import CroniterBadDateError, croniter

from .timing import CronTiming, IntervalTiming, OnceTiming, Timing, gaps_near, instant_of

_DAY = timedelta(days=1)
_MOST = 2 * _DAY
_MIDNIGHT = time()


@dataclass(frozen=True, slots=True)
class Span:
    """What is due from one instant up to another. `instants` holds all of it, unless it is more than was asked for."""

    count: int = 0
    first: datetime | None = None
    last: datetime | None = None
    instants: tuple[datetime, ...] = ()


_NOTHING = Span()


def due_within(timing: Timing, since: datetime, until: datetime, keep: int) -> Span:
    """What is due from `since` (inclusive) up to `until` (exclusive), at most two days later.

    `instants` is empty where there are more than `keep`. Raises ValueError for a longer time.
    """
    if until - since > _MOST:
        raise ValueError("a span is two days at most")
    if until <= since:
        return _NOTHING
    since, until = since.astimezone(UTC), until.astimezone(UTC)
    match timing:
        case CronTiming():
            # Whole days are asked for again; what begins now is not.
            compute = _cron if since.time() == until.time() == _MIDNIGHT else _cron.__wrapped__
            return compute(timing.prefect_cron, timing.timezone, since, until, keep)
        case IntervalTiming():
            return _interval(timing, since, until, keep)
        case OnceTiming():
            at = timing.at.astimezone(UTC)
            return Span(1, at, at, (at,) if keep else ()) if since <= at < until else _NOTHING
        case _:
            assert_never(timing)


def _interval(timing: IntervalTiming, since: datetime, until: datetime, keep: int) -> Span:
    anchor, every = timing.prefect_anchor, timing.every
    low, high = -((anchor - since) // every), -((anchor - until) // every)  # the first that is due at or after each
    if high <= low:
        return _NOTHING
    count = high - low
    instants = tuple(anchor + number * every for number in range(low, high)) if count <= keep else ()
    return Span(count, anchor + low * every, anchor + (high - 1) * every, instants)


@lru_cache(maxsize=65_536)
def _cron(expression: str, timezone: str, since: datetime, until: datetime, keep: int) -> Span:
    times = _times_of_day(expression)
    dates = " ".join(expression.split()[2:5])
    offset = _steady_offset(timezone, since.date())
    if offset is None:
        return _through_a_change(times, dates, timezone, since, until, keep)
    count, first, last = 0, None, None
    instants: list[datetime] = []
    start, end = (since + offset).replace(tzinfo=None), (until + offset).replace(tzinfo=None)
    day = start.date()
    while day <= end.date():
        if day.day in _days(dates, day.year, day.month):
            midnight = datetime(day.year, day.month, day.day)  # noqa: DTZ001 - on the timezone's clock
            low = bisect_left(times, (start - midnight).total_seconds())
            high = bisect_left(times, (end - midnight).total_seconds())
            if high > low:
                count += high - low
                begin = (midnight - offset).replace(tzinfo=UTC)
                first = first or begin + timedelta(seconds=times[low])
                last = begin + timedelta(seconds=times[high - 1])
                if count <= keep:
                    instants += (begin + timedelta(seconds=one) for one in times[low:high])
        day += _DAY
    return Span(count, first, last, tuple(instants) if count <= keep else ())


def _through_a_change(
    times: tuple[int, ...], dates: str, timezone: str, since: datetime, until: datetime, keep: int
) -> Span:
    zone, found = ZoneInfo(timezone), set()
    day = since.date() - 2 * _DAY  # a time that a whole day's gap moves, on the other side of the date line
    while day <= until.date() + 2 * _DAY:
        if day.day in _days(dates, day.year, day.month):
            midnight = datetime(day.year, day.month, day.day)  # noqa: DTZ001 - on the timezone's clock
            for one in times:
                wall = midnight + timedelta(seconds=one)
                inside = next((gap for gap in gaps_near(timezone, wall) if gap.start <= wall < gap.end), None)
                at = instant_of(wall, zone, inside)
                if since <= at < until:
                    found.add(at)
        day += _DAY
    if not found:
        return _NOTHING
    ordered = sorted(found)
    return Span(len(ordered), ordered[0], ordered[-1], tuple(ordered) if len(ordered) <= keep else ())


@lru_cache(maxsize=4096)
def _times_of_day(expression: str) -> tuple[int, ...]:
    """The times of a day at which the expression is due, in seconds from midnight."""
    fields, _ = croniter.expand(expression)
    hours, minutes = _all(fields[1], 24), _all(fields[0], 60)
    second = int(fields[5][0]) if len(fields) > 5 else 0
    return tuple(sorted(hour * 3600 + minute * 60 + second for hour in hours for minute in minutes))


def _all(field: Sequence[int | str], count: int) -> list[int]:
    return list(range(count)) if "*" in field else [int(one) for one in field]


@lru_cache(maxsize=16_384)
def _days(dates: str, year: int, month: int) -> frozenset[int]:
    """The days of a month that the last three fields of an expression name."""
    first = datetime(year, month, 1)  # noqa: DTZ001 - on the timezone's clock
    walker = croniter(f"0 0 {dates}", first - timedelta(seconds=1))
    days: set[int] = set()
    while True:
        try:
            at = walker.get_next(datetime)
        except (CroniterBadDateError, OverflowError, ValueError):
            return frozenset(days)  # the calendar ends
        if (at.year, at.month) != (year, month):
            return frozenset(days)
        days.add(at.day)


@lru_cache(maxsize=16_384)
def _steady_offset(timezone: str, day: date) -> timedelta | None:
    """The timezone's offset from UTC; None where it changes between two days before `day` (UTC) and four after."""
    zone = ZoneInfo(timezone)
    start = datetime(day.year, day.month, day.day, tzinfo=UTC) - 2 * _DAY
    offsets = {(start + hours * timedelta(hours=6)).astimezone(zone).utcoffset() for hours in range(25)}
    return offsets.pop() if len(offsets) == 1 else None
