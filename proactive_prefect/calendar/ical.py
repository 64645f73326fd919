"""The read-only feed for calendar applications: one series for each rule that is active, by RFC 5545."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, date, datetime, timedelta

import icalendar

from ..rules.phrases import when
from .plans import Plan
from .recurrence import CLOCK_CHANGES, Recurrence, recurrence

REFRESH = timedelta(hours=1)
_BACK = timedelta(days=1)


def feed(plans: Iterable[Plan], now: datetime, name: str = "proactive") -> bytes:
    """The feed, as of `now`, in UTF-8. Rules that are paused, switched off or never due again are not in it."""
    made = icalendar.Calendar()
    made.add("prodid", "-//proactive-prefect//calendar//EN")
    made.add("version", "2.0")
    made.add("method", "PUBLISH")
    made.add("x-wr-calname", name)
    made.add("refresh-interval", REFRESH, parameters={"VALUE": "DURATION"})
    made.add("x-published-ttl", REFRESH)
    since = datetime(now.year, now.month, now.day, tzinfo=UTC) - _BACK
    for plan in sorted(plans, key=lambda plan: plan.rule_id):
        found = recurrence(plan, since)
        if found is not None:
            made.add_component(_series(plan, found))
    made.add_missing_timezones(first_date=since.date(), last_date=(now + CLOCK_CHANGES).date())
    text: bytes = made.to_ical()
    return text


def _series(plan: Plan, found: Recurrence) -> icalendar.Event:
    event = icalendar.Event()
    event.add("uid", f"{plan.rule_id}@proactive-prefect")
    event.add("dtstamp", plan.since)  # the same for the same version, so that readers see what changed
    event.add("last-modified", plan.since)
    event.add("summary", plan.rule_id)
    event.add("description", f"{plan.description}\n{when(plan.rule)}".strip())
    event.add("categories", [plan.kind])
    event.add("transp", "TRANSPARENT")
    event.add("class", "PRIVATE")
    event.add("dtstart", found.start)
    if not isinstance(found.start, datetime):
        event.add("duration", timedelta(days=1))
    if found.rule is not None:
        event.add("rrule", found.rule)
    if found.added:
        kind = {} if isinstance(found.added[0], datetime) else {"VALUE": "DATE"}
        event.add("rdate", list[date](found.added), parameters=kind)
    if found.removed:
        event.add("exdate", list(found.removed))
    return event
