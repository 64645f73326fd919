"""When a rule is due, and instants, in words for people."""

from __future__ import annotations

from datetime import datetime
from typing import assert_never
from zoneinfo import ZoneInfo

from .durations import format_duration
from .models import Rule
from .timing import CronTiming, IntervalTiming, OnceTiming


def when(rule: Rule) -> str:
    """When a rule is due: "every 5m", "cron 0 9 * * mon-fri (Europe/Berlin)", "once at …", "when called"."""
    timing = rule.timing
    match timing:
        case None:
            return "when called"
        case IntervalTiming():
            return f"every {format_duration(timing.every)}"
        case CronTiming():
            return f"{timing.cron} ({timing.timezone})"
        case OnceTiming():
            return f"once at {instant(timing.at, rule.timezone)}"
        case _:
            assert_never(timing)


def timezone_of(rule: Rule) -> str:
    """The timezone whose wall clock a rule goes by."""
    timing = rule.timing
    return timing.timezone if isinstance(timing, CronTiming) else rule.timezone


def instant(at: datetime, timezone: str, *, seconds: bool = True) -> str:
    """An instant on the wall clock of a timezone: "Fri 2026-11-20 09:00:00 CET"."""
    return at.astimezone(ZoneInfo(timezone)).strftime(f"%a %Y-%m-%d %H:%M{':%S' if seconds else ''} %Z")
