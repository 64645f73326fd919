"""A rule's due times as iCalendar says them: a start, a rule of recurrence, dates added, dates taken out. Pure.

A cron expression is a rule of recurrence on its timezone's clock, mostly. Where it is not (a day of the month *or* of
the week), and where a clock change moves one of several times, the dates are written out as far as `SPELLED_OUT`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from typing import Any, assert_never
from zoneinfo import ZoneInfo

from croniter import croniter

from ..rules.timing import ClockChange, CronTiming, IntervalTiming, OnceTiming, clock_changes, due_between, instant_of
from .entries import FOLD_ABOVE
from .plans import Plan

SPELLED_OUT = timedelta(days=92)
CLOCK_CHANGES = timedelta(days=3 * 366)
"""How far ahead clock changes are looked at; readers fetch the feed again long before."""
_FIRST_WITHIN = timedelta(days=366 * 8)  # 29 February may be eight years away
_DAY = timedelta(days=1)
_WEEKDAYS = ("SU", "MO", "TU", "WE", "TH", "FR", "SA")
_MOST = 5_000


@dataclass(frozen=True)
class Recurrence:
    """When something recurs. `start` is its first: an instant, or a day where it is due too often to tell apart."""

    start: datetime | date
    rule: dict[str, Any] | None = None
    added: Sequence[datetime | date] = field(default_factory=tuple)
    removed: Sequence[datetime] = field(default_factory=tuple)


def recurrence(plan: Plan, since: datetime) -> Recurrence | None:
    """How the plan recurs from `since` on; None if it is never due again. All day where it is due very often."""
    if plan.timing is None or plan.status != "active":
        return None
    since = max(since, plan.rule.start_at or since).astimezone(UTC)
    match plan.timing:
        case OnceTiming():
            at = plan.timing.at.astimezone(UTC)
            ended = plan.rule.end_at is not None and at >= plan.rule.end_at
            return Recurrence(at) if at >= since and not ended else None
        case IntervalTiming():
            found: Recurrence | None = _of_interval(plan, plan.timing, since)
        case CronTiming():
            found = _of_cron(plan, plan.timing, since)
        case _:
            assert_never(plan.timing)
    return _ended(found, plan.rule.end_at)


def _of_interval(plan: Plan, timing: IntervalTiming, since: datetime) -> Recurrence:
    first = due_between(timing, since, since + timing.every + _DAY, 1)[0]
    if timing.every < _DAY / FOLD_ABOVE:
        return Recurrence(first.date(), {"FREQ": "DAILY"})
    seconds = int(timing.every.total_seconds())
    if seconds % 86_400 == 0:
        return Recurrence(first, {"FREQ": "DAILY", "INTERVAL": seconds // 86_400})
    if 86_400 % seconds == 0 and seconds % 3600 == 0:
        # Many calendars know no recurrence within a day: these times are the same each day.
        hours = sorted({at.hour for at in due_between(timing, first, first + _DAY, 24)})
        return Recurrence(first, {"FREQ": "DAILY", "BYHOUR": hours})
    for name, length in (("HOURLY", 3600), ("MINUTELY", 60)):
        if seconds % length == 0:
            return Recurrence(first, {"FREQ": name, "INTERVAL": seconds // length})
    return Recurrence(first, {"FREQ": "SECONDLY", "INTERVAL": seconds})


def _of_cron(plan: Plan, timing: CronTiming, since: datetime) -> Recurrence | None:
    zone = ZoneInfo(timing.timezone)
    dues = due_between(timing, since, since + _FIRST_WITHIN, 4)
    if not dues:
        return None
    fields, nth = croniter.expand(timing.prefect_cron)
    dates = _dates(fields, nth)
    if _times_a_day(timing) > FOLD_ABOVE:
        first = dues[0].astimezone(zone).date()
        if dates is not None:
            return Recurrence(first, dates)
        days = {at.astimezone(zone).date() for at in _days_due(timing, since)}
        return Recurrence(first, None, sorted(days - {first}))
    start = next((at for at in dues if _is_on_the_clock(timing, at.astimezone(zone))), None)
    patches = _around_gaps(timing, zone, since)
    if dates is None or start is None or patches is None:
        spelled = due_between(timing, since, since + SPELLED_OUT, _MOST) or dues[:1]
        return Recurrence(spelled[0], None, spelled[1:])
    seconds = [int(fields[5][0])] if len(fields) > 5 else [0]
    times = {"BYHOUR": _all(fields[1], 24), "BYMINUTE": _all(fields[0], 60), "BYSECOND": seconds}
    removed, added = patches
    return Recurrence(start.astimezone(zone), {**dates, **times}, added, removed)


def _dates(fields: Sequence[Sequence[Any]], nth: dict[Any, Any]) -> dict[str, Any] | None:
    """The last three fields of a cron expression as a rule of recurrence; None where there is none that says it."""
    days, months, weekdays = (list(field) for field in fields[2:5])
    if days != ["*"] and weekdays != ["*"]:
        return None  # either is enough
    rule: dict[str, Any] = {"FREQ": "DAILY"}
    if nth:
        named = [f"{-1 if which == 'l' else which}{_WEEKDAYS[day]}" for day in sorted(nth) for which in nth[day]]
        rule = {"FREQ": "MONTHLY", "BYDAY": named}
    elif weekdays != ["*"]:
        rule["BYDAY"] = [_WEEKDAYS[int(day)] for day in weekdays]
    elif days != ["*"]:
        rule["BYMONTHDAY"] = [-1 if day == "l" else int(day) for day in days]
    if months != ["*"]:
        rule["BYMONTH"] = [int(month) for month in months]
    return rule


def _around_gaps(timing: CronTiming, zone: ZoneInfo, since: datetime) -> tuple[list[datetime], list[datetime]] | None:
    """The dates to take out and those to add where Prefect moves times out of a gap otherwise than iCalendar does.

    None for a rule with several times a day: a moved one may meet another, and readers differ in which of them a date
    that is taken out means.
    """
    removed: list[datetime] = []
    added: list[datetime] = []
    for gap in _gaps(timing.timezone, since.date()):
        if gap.at < since:
            continue
        for wall in _walls(timing, gap.start, gap.end):
            due = instant_of(wall, zone, gap)
            expected = wall.replace(tzinfo=zone, fold=0).astimezone(UTC)  # as RFC 5545 reads a time in a gap
            if due == expected:
                continue
            if _times_a_day(timing) > 1:
                return None
            removed.append(expected)
            added.append(due)
    return removed, added


@lru_cache(maxsize=1024)
def _gaps(timezone: str, since: date) -> tuple[ClockChange, ...]:
    """The gaps of a timezone in the years from a day on: many rules share it."""
    start = datetime(since.year, since.month, since.day, tzinfo=UTC)
    return tuple(one for one in clock_changes(timezone, start, start + CLOCK_CHANGES) if one.kind == "gap")


def _walls(timing: CronTiming, start: datetime, end: datetime) -> list[datetime]:
    """The times of the expression between two naive ones, on a clock that never changes."""
    still = CronTiming(timing.cron, "UTC", timing.dst, timing.splay_key, timing.splay)
    found = due_between(still, start.replace(tzinfo=UTC), end.replace(tzinfo=UTC), _MOST)
    return [at.replace(tzinfo=None) for at in found]


def _is_on_the_clock(timing: CronTiming, local: datetime) -> bool:
    """Whether the expression names this local time, and not one that was moved to it."""
    wall = local.replace(tzinfo=None)
    return bool(_walls(timing, wall, wall + timedelta(seconds=1)))


def _times_a_day(timing: CronTiming) -> int:
    fields, _ = croniter.expand(timing.prefect_cron)
    return len(_all(fields[0], 60)) * len(_all(fields[1], 24))


def _days_due(timing: CronTiming, since: datetime) -> list[datetime]:
    """The first due time of each day for a while."""
    fields = timing.cron.split()
    daily = CronTiming(" ".join(["0", "12", *fields[2:5]]), timing.timezone, timing.dst)
    return due_between(daily, since, since + SPELLED_OUT, _MOST)


def _ended(found: Recurrence | None, end: datetime | None) -> Recurrence | None:
    if found is None or end is None:
        return found
    last = end.astimezone(UTC) - timedelta(seconds=1)
    if isinstance(found.start, datetime):
        if found.start > last:
            return None
        until: datetime | date = last
        added = [at for at in found.added if isinstance(at, datetime) and at <= last]
    else:
        if found.start > last.date():
            return None
        until = last.date()
        added = [at for at in found.added if not isinstance(at, datetime) and at <= until]  # type: ignore[misc]
    rule = None if found.rule is None else {**found.rule, "UNTIL": until}
    return Recurrence(found.start, rule, added, found.removed)


def _all(field: Sequence[Any], count: int) -> list[int]:
    return list(range(count)) if "*" in field else [int(one) for one in field]
