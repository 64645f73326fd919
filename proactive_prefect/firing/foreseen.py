"""What the gate will say of a time that is yet to come, and so when a rule will run next. Pure.

The gate is asked as it will be asked then, without what nobody can know before: other runs, a session, how late it is.
"""

from __future__ import annotations

from datetime import UTC, datetime, time, timedelta
from uuid import UUID
from zoneinfo import ZoneInfo

from ..rules.models import Rule
from ..rules.phrases import timezone_of
from ..rules.policies import Conditions
from ..rules.timing import due_after
from .gate import Facts, Occurrence, Skip, decide

_NOBODY = UUID(int=0)
_NO_CONDITIONS = Conditions()
_MOST_SKIPPED = 2_000  # in a row: an expression may rule out all that will ever be
_DAY = timedelta(days=1)
# More than any clock change, and than what hours of another timezone can be off by it.
_MARGIN = timedelta(hours=3)


def foreseen_skip(rule: Rule, due: datetime) -> Skip | None:
    """Why the occurrence due at `due` (aware) will be skipped, as far as that can be told beforehand; or None."""
    if rule.enabled and rule.conditions == _NO_CONDITIONS and rule.start_at is None and rule.end_at is None:
        return None
    decision = decide(rule, Occurrence(rule.id, due, _NOBODY, "schedule"), Facts(now=due))
    return decision if isinstance(decision, Skip) else None


def next_runs(rule: Rule, after: datetime, count: int) -> list[datetime]:
    """The first `count` instants after `after` at which `rule` is due and nothing foreseen skips it: UTC, in order.

    Fewer where it ends before, or where a `custom` expression skips some thousands in a row.
    """
    found: list[datetime] = []
    timing = rule.timing
    if timing is None or not rule.enabled:
        return found
    skipped = 0
    dues = due_after(timing, after)
    while len(found) < count and skipped < _MOST_SKIPPED and (due := next(dues, None)) is not None:
        skip = foreseen_skip(rule, due)
        if skip is None:
            found.append(due)
            skipped = 0
            continue
        skipped += 1
        again = _not_before(rule, due, skip)
        if again is None:
            break
        if again > due:
            dues = due_after(timing, again)
    return found


def _not_before(rule: Rule, due: datetime, skip: Skip) -> datetime | None:
    """An instant up to which the same reason holds for all after `due`; None: for ever."""
    zone = ZoneInfo(timezone_of(rule))
    match skip.code:
        case "environment" | "disabled":
            return None
        case "expired" if rule.start_at is not None and due < rule.start_at:
            return rule.start_at.astimezone(UTC) - timedelta(microseconds=1)
        case "expired":
            return None
        case "wrong_day" | "excluded_date":
            return _before_next(time(0), due, zone)
        case "outside_active_hours":
            hours = rule.conditions.active_hours
            assert hours is not None  # they are what it is outside of
            return _before_next(hours.start, due, ZoneInfo(hours.timezone) if hours.timezone else zone)
        case _:
            return due


def _before_next(wall: time, due: datetime, zone: ZoneInfo) -> datetime:
    """Shortly before the next time that a clock in `zone` shows `wall`."""
    local = due.astimezone(zone).replace(tzinfo=None)
    at = datetime.combine(local.date(), wall)
    if at <= local:
        at += _DAY
    return at.replace(tzinfo=zone).astimezone(UTC) - _MARGIN
