"""Which due times of a rule should have been kept, from what the rule was at each time: pure, time is an argument.

A due time counts when the rule was active then, and stayed so until its grace was over: what somebody paused, switched
off or deleted before it was late was not missed. Just after a rule began (was made, resumed, or got other times),
Prefect may not have had its runs ready; what was due then is Prefect's to tell, not ours to expect.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache

from pydantic import ValidationError

from ..ledger.tables import RuleVersion
from ..rules.durations import format_duration
from ..rules.models import Rule, from_snapshot
from ..rules.timing import Timing, due_between, next_due

# Prefect's scheduler looks at changed deployments every 5 s.
SETTLING = timedelta(seconds=10)
# Beyond this many, due times are no longer counted: "at least".
MOST_COUNTED = 20_000


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
    for number, version in enumerate(versions):
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
            too_old = _missing(rule, first, min(oldest, last), known, MOST_COUNTED)
            if too_old:
                reason = f"older than the rule's lookback of {format_duration(rule.lookback)}"
                omitted.append(Omission(too_old[0], min(oldest, last), len(too_old), reason))
        found += [
            Due(at, rule, version.snapshot) for at in _missing(rule, max(first, oldest), last, known, MOST_COUNTED)
        ]
    if len(found) > limit:
        left, found = found[:-limit], found[-limit:]
        omitted.append(Omission(left[0].at, found[0].at, len(left), f"more than {limit} of this rule at once"))
    return Expectation(tuple(found), tuple(omitted))


@lru_cache(maxsize=4096)
def read_rule(snapshot: str) -> Rule | None:
    """The rule that a snapshot holds; None for one that this version cannot read."""
    try:
        return from_snapshot(snapshot)
    except ValidationError:
        return None


def _missing(rule: Rule, since: datetime, until: datetime, known: frozenset[int], most: int) -> list[datetime]:
    if rule.timing is None or since >= until:
        return []
    # Rounds follow each other closely, and mostly nothing is due between two: that is not computed anew each time.
    minutes = since.astimezone(UTC).replace(second=0, microsecond=0)
    upcoming = _first_due(rule.timing, minutes - timedelta(minutes=minutes.minute % 5))
    if upcoming is None or upcoming >= until:
        return []
    return [at for at in due_between(rule.timing, since, until, most) if not is_known(at, known)]


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
