"""Which due times of a rule should have been kept, from what the rule was at each time: pure, time is an argument.

A due time counts when the rule was active then, and stayed so until its grace was over: what somebody paused, switched
off or deleted before it was late was not missed. Just after a rule began (was made, resumed, or got other times),
Prefect may not have had its runs ready; what was due then is Prefect's to tell, not ours to expect.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache

from pydantic import ValidationError

from ..ledger.tables import RuleVersion
from ..rules.durations import format_duration
from ..rules.models import Rule, from_snapshot
from ..rules.spans import due_within
from ..rules.timing import Timing, next_due

# Prefect's scheduler looks at changed deployments every 5 s.
SETTLING = timedelta(seconds=10)
_DAY = timedelta(days=1)
_MOST_A_DAY = 86_400  # nothing is due more often than each second


@dataclass(frozen=True)
class Due:
    """A due time that should have been kept, and the rule as it was then."""

    at: datetime
    rule: Rule
    snapshot: str


@dataclass(frozen=True)
class Omission:
    """Due times that are not looked into, from the first up to `until`, and why."""

    since: datetime
    until: datetime
    count: int
    reason: str


@dataclass(frozen=True)
class Expectation:
    """What should have happened: the due times to look into, in order, and those left out."""

    due: tuple[Due, ...] = ()
    omitted: tuple[Omission, ...] = ()


def expected(
    versions: Sequence[RuleVersion], since: datetime, now: datetime, *, known: frozenset[int] = frozenset(), limit: int
) -> Expectation:
    """The due times of one rule from `since` on whose grace is over at `now`, but for those `known`.

    `versions` are all of the rule's, the oldest first; `known` has the seconds of the epoch that are accounted for.
    Left out is what is older than the rule's lookback, and of more than `limit` the oldest.
    """
    found: list[Due] = []
    omitted: list[Omission] = []
    older: list[_Missing] = []
    for number, version in reversed(list(enumerate(versions))):  # the latest count, so they are found first
        rule = read_rule(version.snapshot) if version.status == "active" else None
        if rule is None or rule.timing is None:
            continue
        before = versions[number - 1] if number else None
        after = versions[number + 1] if number + 1 < len(versions) else None
        first = max(since, version.since + (timedelta(0) if _goes_on(before, rule) else SETTLING))
        last = now - rule.grace
        if after is not None:
            last = min(last, after.since if after.status == "active" else after.since - rule.grace)
        if rule.start_at is not None:
            first = max(first, rule.start_at)
        if rule.end_at is not None:
            last = min(last, rule.end_at)
        oldest = now - rule.lookback
        if first < min(oldest, last):
            too_old = _missing(rule, first, min(oldest, last), known, 0)
            if too_old.first is not None:
                reason = f"older than the rule's lookback of {format_duration(rule.lookback)}"
                omitted.insert(0, Omission(too_old.first, min(oldest, last), too_old.count, reason))
        missing = _missing(rule, max(first, oldest), last, known, limit - len(found))
        found = [*(Due(at, rule, version.snapshot) for at in missing.latest), *found]
        older.append(missing)
    firsts = [one.first for one in older if one.first is not None]
    if firsts:
        reason = f"more than {limit} of this rule at once"
        omitted.append(Omission(min(firsts), found[0].at, sum(one.count for one in older), reason))
    return Expectation(tuple(found), tuple(omitted))


@lru_cache(maxsize=4096)
def read_rule(snapshot: str) -> Rule | None:
    """The rule that a snapshot holds; None for one that this version cannot read."""
    try:
        return from_snapshot(snapshot)
    except ValidationError:
        return None


@dataclass(frozen=True)
class _Missing:
    """The latest due times that are not known, in order; how many more there are before these, and the first of all."""

    latest: tuple[datetime, ...] = ()
    count: int = 0
    first: datetime | None = None


def _missing(rule: Rule, since: datetime, until: datetime, known: frozenset[int], most: int) -> _Missing:
    """Looks back day by day from the end; days of which nothing is known and no more is wanted are only counted."""
    if rule.timing is None or since >= until:
        return _Missing()
    # Rounds follow each other closely, and mostly nothing is due between two: that is not computed anew each time.
    minutes = since.astimezone(UTC).replace(second=0, microsecond=0)
    upcoming = _first_due(rule.timing, minutes - timedelta(minutes=minutes.minute % 5))
    if upcoming is None or upcoming >= until:
        return _Missing()
    seconds = sorted(known)
    latest: list[datetime] = []
    count, first = 0, None
    for start, end in _days_back(since, until):
        if len(latest) == most and not _any_between(seconds, start, end):
            span = due_within(rule.timing, start, end, 0)
            count, first = count + span.count, span.first or first
            continue
        there = [at for at in due_within(rule.timing, start, end, _MOST_A_DAY).instants if not is_known(at, known)]
        cut = max(0, len(there) - (most - len(latest)))
        latest = there[cut:] + latest
        count, first = count + cut, there[0] if cut else first
    return _Missing(tuple(latest), count, first)


def _days_back(since: datetime, until: datetime) -> Iterator[tuple[datetime, datetime]]:
    """The time between, in pieces of a day, the last first."""
    while until > since:
        start = max(since, until - _DAY)
        yield start, until
        until = start


def _any_between(seconds: Sequence[int], start: datetime, end: datetime) -> bool:
    """Whether any of these seconds, in order, could stand for a time between the two."""
    low, high = int(start.timestamp()), int(end.timestamp()) + 2
    return bisect_left(seconds, low) < bisect_left(seconds, high)


@lru_cache(maxsize=8192)
def _first_due(timing: Timing, at: datetime) -> datetime | None:
    return next(iter(next_due(timing, at - timedelta(microseconds=1), 1)), None)


def is_known(at: datetime, known: frozenset[int]) -> bool:
    """Whether a due time is among the known seconds; Prefect's times are whole seconds."""
    return int(at.timestamp()) in known or round(at.timestamp()) in known


def _goes_on(before: RuleVersion | None, rule: Rule) -> bool:
    """Whether the version before was active at the same times, so that Prefect had the runs ready."""
    if before is None or before.status != "active":
        return False
    former = read_rule(before.snapshot)
    return former is not None and former.timing == rule.timing
