"""What each rule will do, from the version of it that holds now: pure."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import datetime

from pydantic import ValidationError

from ..ledger.tables import RuleVersion
from ..rules.models import Kind, Rule, from_snapshot
from ..rules.spans import Span, due_within
from ..rules.timing import Timing
from .entries import OF_MISSED, CalendarAction, Status

log = logging.getLogger("proactive.calendar")

_NOTHING = Span()


@dataclass(frozen=True, slots=True)
class Plan:
    """A rule as it is now: its name to people, and when it will be due."""

    rule_id: str
    kind: Kind
    owner_id: str
    description: str
    status: str
    """active, paused, disabled, or deleted."""
    version_id: int
    since: datetime
    deployment_id: str | None
    rule: Rule
    timing: Timing | None

    @property
    def title(self) -> str:
        """The rule's id, and what it is for."""
        return f"{self.rule_id}: {self.description}" if self.description else self.rule_id

    def due(self, since: datetime, until: datetime, keep: int) -> Span:
        """When it will be due from `since` up to `until`, at most two days; nothing while it is paused or gone."""
        if self.timing is None or self.status != "active":
            return _NOTHING
        if self.rule.start_at is not None:
            since = max(since, self.rule.start_at)
        if self.rule.end_at is not None:
            until = min(until, self.rule.end_at)
        return due_within(self.timing, since, until, keep)


def plan_of(version: RuleVersion) -> Plan | None:
    """The plan of a rule's version; None where this program cannot read it."""
    try:
        rule = from_snapshot(version.snapshot)
    except ValidationError:
        log.warning("calendar.unreadable rule=%s version=%s", version.rule_id, version.id)
        return None
    assert version.id is not None  # it comes from the database
    return Plan(
        version.rule_id,
        rule.kind,
        rule.owner,
        rule.description,
        version.status,
        version.id,
        version.since,
        version.deployment_id,
        rule,
        rule.timing,
    )


def actions_for(status: Status, plan: Plan | None) -> tuple[CalendarAction, ...]:
    """What may be asked of an occurrence of that status, while its rule is as it is."""
    of_missed = OF_MISSED if status == "missed" else ()
    if plan is None or plan.status == "deleted":
        return of_missed
    match plan.status:
        case "paused":
            return (*of_missed, "run_now", "resume")
        case "disabled":
            return of_missed  # the rules file says so
        case _:
            return (*of_missed, "run_now", "pause")
