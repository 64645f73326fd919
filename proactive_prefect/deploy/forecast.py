"""What the rules will do: next fires, clock changes they meet, minutes they share, runs a day. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

from ..firing.foreseen import foreseen_skip, next_runs
from ..rules.models import Rule
from ..rules.timing import ClockChange, CronTiming, clock_changes, due_between

_DAY = timedelta(days=1)
_MOST_A_DAY = 86_400  # one each second, the shortest interval
_CROWD = 20


@dataclass(frozen=True)
class NextFire:
    """When a rule runs next, in UTC and on its own clock; None: never again, or it is not enabled."""

    rule_id: str
    due: datetime | None
    local: datetime | None
    runs_a_day: int


@dataclass(frozen=True)
class ClockWarning:
    """A clock change that meets cron rules: in a gap their times move, in an overlap they run at the first only."""

    timezone: str
    change: ClockChange
    rules: tuple[str, ...]


@dataclass(frozen=True)
class Collision:
    """A minute (UTC) of the next day in which several rules are due."""

    minute: datetime
    rules: tuple[str, ...]


@dataclass(frozen=True)
class Forecast:
    """Everything that can be said about a set of rules from an instant on."""

    fires: tuple[NextFire, ...]
    clock_warnings: tuple[ClockWarning, ...]
    collisions: tuple[Collision, ...]
    """At most 20, the fullest minutes of different sets of rules first."""
    runs_a_day: int


def forecast(rules: Iterable[Rule], now: datetime) -> Forecast:
    """Look ahead from `now`: a day for runs and collisions, a year for clock changes."""
    fires: list[NextFire] = []
    minutes: dict[datetime, list[str]] = defaultdict(list)
    zones: dict[str, list[Rule]] = defaultdict(list)
    for rule in rules:
        timing = rule.timing
        if timing is None or not rule.enabled:
            fires.append(NextFire(rule.id, None, None, 0))
            continue
        first = next(iter(next_runs(rule, now, 1)), None)
        day = [due for due in due_between(timing, now, now + _DAY, _MOST_A_DAY) if foreseen_skip(rule, due) is None]
        timezone = timing.timezone if isinstance(timing, CronTiming) else rule.timezone
        fires.append(NextFire(rule.id, first, first and first.astimezone(ZoneInfo(timezone)), len(day)))
        for minute in dict.fromkeys(due.replace(second=0, microsecond=0) for due in day):
            minutes[minute].append(rule.id)
        if isinstance(timing, CronTiming):
            zones[timezone].append(rule)
    return Forecast(
        tuple(fires), tuple(_clock_warnings(zones, now)), _collisions(minutes), sum(fire.runs_a_day for fire in fires)
    )


def _clock_warnings(zones: dict[str, list[Rule]], now: datetime) -> Iterable[ClockWarning]:
    for timezone, rules in sorted(zones.items()):
        for change in clock_changes(timezone, now, now + 365 * _DAY):
            hit = tuple(rule.id for rule in rules if _meets(rule, change))
            if hit:
                yield ClockWarning(timezone, change, hit)


def _meets(rule: Rule, change: ClockChange) -> bool:
    """Whether a cron rule has a time inside the local hours that are removed or repeated."""
    timing = rule.timing
    assert isinstance(timing, CronTiming)
    # On a clock that never changes, the expression's times are its wall-clock times.
    still = CronTiming(timing.cron, "UTC", timing.dst)
    zone = ZoneInfo("UTC")
    return bool(due_between(still, change.start.replace(tzinfo=zone), change.end.replace(tzinfo=zone), 1))


def _collisions(minutes: dict[datetime, list[str]]) -> tuple[Collision, ...]:
    """The first minute of each set of rules that meet: rules that meet every five minutes are named once."""
    first: dict[tuple[str, ...], datetime] = {}
    for minute, rules in sorted(minutes.items()):
        if len(rules) > 1:
            first.setdefault(tuple(rules), minute)
    fullest = sorted(first.items(), key=lambda item: (-len(item[0]), item[1]))[:_CROWD]
    return tuple(Collision(minute, rules) for rules, minute in fullest)
