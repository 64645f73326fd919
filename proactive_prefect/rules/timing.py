"""When a rule is due: pure functions of an explicit instant.

What is said here is what the installed Prefect's scheduler does, since that is what fires:

- Cron counts on the wall clock of its timezone. A local time that comes twice is due the first time. A local time that
  a clock change removes is moved out of the gap by the gap's length: to after it by Prefect 3.9, and by 3.8 on Python
  3.13; to before it by 3.8 on older Pythons. Where a run is due there already, there is one run, not two.
- Intervals count elapsed time from their anchor, in both directions, and know no clock changes. They are handed to
  Prefect in UTC: in a timezone, Prefect would count days on the wall clock from wherever it happens to look.
- A splay is part of the schedule itself, so nothing has to wait for it: an interval's anchor moves by up to the splay,
  a cron expression gets a second of the minute.
"""

from __future__ import annotations

import hashlib
import heapq
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from importlib.metadata import version
from itertools import islice, takewhile
from typing import Literal, assert_never
from zoneinfo import ZoneInfo

from croniter import CroniterBadDateError, croniter

from .cron import check_cron as check_cron
from .cron import five_fields
from .policies import Dst

CRON_SPLAY_LIMIT = timedelta(seconds=59)
_SECOND = timedelta(seconds=1)
_DAY = timedelta(days=1)


def _shifts_forward() -> bool:
    major, minor = (int(part) for part in version("prefect").split(".")[:2])
    return (major, minor) >= (3, 9) or sys.version_info >= (3, 13)


SHIFTS_FORWARD = _shifts_forward()


@dataclass(frozen=True)
class CronTiming:
    """The times of a five-field cron expression, on the wall clock of `timezone`."""

    cron: str
    timezone: str
    dst: Dst
    splay_key: str | None = None
    splay: timedelta | None = None

    @property
    def prefect_cron(self) -> str:
        """What Prefect's CronSchedule gets: five fields, and a sixth for the second where there is a splay."""
        second = int(splay_offset(self.splay_key, self.splay).total_seconds())
        return five_fields(self.cron) + (f" {second}" if second else "")


@dataclass(frozen=True)
class IntervalTiming:
    """Every `every` from `anchor` on; with a splay, shifted by an amount fixed for `splay_key`.

    `timezone` is what Prefect's IntervalSchedule gets, and always "UTC".
    """

    every: timedelta
    anchor: datetime
    timezone: str = "UTC"
    splay_key: str | None = None
    splay: timedelta | None = None

    @property
    def prefect_anchor(self) -> datetime:
        """What Prefect's IntervalSchedule gets as its anchor, in UTC: the anchor and the splay."""
        return self.anchor.astimezone(UTC) + splay_offset(self.splay_key, self.splay)


@dataclass(frozen=True)
class OnceTiming:
    """One instant."""

    at: datetime


Timing = CronTiming | IntervalTiming | OnceTiming


@dataclass(frozen=True)
class ClockChange:
    """A change of a timezone's clock at the instant `at` (UTC).

    A gap: the local times from `start` up to `end` do not exist. An overlap: they come twice. Both are naive.
    """

    at: datetime
    kind: Literal["gap", "overlap"]
    start: datetime
    end: datetime

    @property
    def length(self) -> timedelta:
        return self.end - self.start


def next_due(timing: Timing, after: datetime, count: int) -> list[datetime]:
    """The first `count` instants strictly after `after` at which `timing` is due, in UTC, in order."""
    return list(islice(due_after(timing, after), count))


def due_between(timing: Timing, since: datetime, until: datetime, limit: int) -> list[datetime]:
    """The first `limit` instants from `since` (inclusive) up to `until` (exclusive) at which `timing` is due."""
    just_before = since - timedelta(microseconds=1)
    return list(islice(takewhile(lambda due: due < until, due_after(timing, just_before)), limit))


def splay_offset(key: str | None, splay: timedelta | None) -> timedelta:
    """How much later a rule starts: whole seconds from 0 to `splay`, always the same for the same `key`."""
    if key is None or splay is None:
        return timedelta(0)
    digest = int.from_bytes(hashlib.sha256(key.encode()).digest()[:8])
    return timedelta(seconds=digest % (int(splay.total_seconds()) + 1))


def clock_changes(timezone: str, since: datetime, until: datetime) -> list[ClockChange]:
    """Every gap and overlap of `timezone` at an instant from `since` (inclusive) up to `until` (exclusive)."""
    zone = ZoneInfo(timezone)
    changes = []
    low = since.astimezone(UTC).replace(microsecond=0) - _SECOND
    while low < until:
        high = min(low + _DAY / 4, until.astimezone(UTC))
        if _offset(low, zone) != _offset(high, zone):
            change = _change_within(zone, low, high)
            if since <= change.at < until:
                changes.append(change)
        low = high if high > low else until
    return changes


def due_after(timing: Timing, after: datetime) -> Iterator[datetime]:
    """The instants strictly after `after` at which `timing` is due, in UTC, in order, one after the other."""
    after = after.astimezone(UTC)
    match timing:
        case CronTiming():
            return _cron_after(timing, after)
        case IntervalTiming():
            return _interval_after(timing, after)
        case OnceTiming():
            return iter([timing.at.astimezone(UTC)] if timing.at > after else [])
        case _:
            assert_never(timing)


def _interval_after(timing: IntervalTiming, after: datetime) -> Iterator[datetime]:
    due = timing.prefect_anchor + ((after - timing.prefect_anchor) // timing.every + 1) * timing.every
    while True:
        yield due
        due += timing.every


def _cron_after(timing: CronTiming, after: datetime) -> Iterator[datetime]:
    zone = ZoneInfo(timing.timezone)
    wall = after.astimezone(zone).replace(tzinfo=None)
    # A time shifted out of a gap may stand before wall-clock times that come earlier in the expression's own order.
    start = wall - max((gap.length for gap in gaps_near(timing.timezone, wall)), default=timedelta(0)) - _SECOND
    waiting: list[datetime] = []
    last = after
    for wall in _wall_times(timing.prefect_cron, start):
        gaps = gaps_near(timing.timezone, wall)
        inside = next((gap for gap in gaps if gap.start <= wall < gap.end), None)
        due = instant_of(wall, zone, inside)
        if due > after:
            heapq.heappush(waiting, due)
        if any(gap.start - gap.length <= wall < gap.end + gap.length for gap in gaps):
            continue
        while waiting:
            due = heapq.heappop(waiting)
            if due > last:
                last = due
                yield due


def _wall_times(expression: str, start: datetime) -> Iterator[datetime]:
    walker = croniter(expression, start)
    while True:
        try:
            yield walker.get_next(datetime)
        except (CroniterBadDateError, OverflowError, ValueError):
            return  # the calendar ends


def instant_of(wall: datetime, zone: ZoneInfo, gap: ClockChange | None) -> datetime:
    """When a local time comes, in UTC; `gap` is the one that it is in, if it is in one."""
    if gap is not None:
        wall = wall + gap.length if SHIFTS_FORWARD else wall - gap.length
    # fold=0: the first of two.
    return wall.replace(tzinfo=zone, fold=0).astimezone(UTC)


def gaps_near(timezone: str, wall: datetime) -> tuple[ClockChange, ...]:
    """The gaps of a timezone in the month of a local time, and in the days around it."""
    return _gaps(timezone, wall.year, wall.month)


@lru_cache(maxsize=4096)
def _gaps(timezone: str, year: int, month: int) -> tuple[ClockChange, ...]:
    """The gaps of a month and of three days on both sides, which is more than any gap and offset together."""
    first = datetime(year, month, 1, tzinfo=UTC)
    changes = clock_changes(timezone, first - 3 * _DAY, first + 34 * _DAY)
    return tuple(change for change in changes if change.kind == "gap")


def _change_within(zone: ZoneInfo, low: datetime, high: datetime) -> ClockChange:
    """The change of offset between two instants, found by halving to the second."""
    before, after = _offset(low, zone), _offset(high, zone)
    while high - low > _SECOND:
        middle = low + timedelta(seconds=(high - low) // _SECOND // 2)
        if _offset(middle, zone) == before:
            low = middle
        else:
            high, after = middle, _offset(middle, zone)
    at = high.replace(tzinfo=None)
    edges = sorted((at + before, at + after))
    return ClockChange(high, "gap" if after > before else "overlap", edges[0], edges[1])


def _offset(instant: datetime, zone: ZoneInfo) -> timedelta:
    offset = instant.astimezone(zone).utcoffset()
    assert offset is not None  # an instant in a zone has one
    return offset
