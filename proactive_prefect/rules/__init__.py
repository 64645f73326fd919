"""Rules as values: reading them from a file, a decorator or an API call, and when each is due.

Pure: no I/O but the rules file and the modules it names, no clock, no Prefect.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .checks import check_calls
    from .models import (
        CronRule,
        HeartbeatRule,
        ProjectTable,
        Rule,
        Rulebook,
        SkillRule,
        WebhookRule,
        from_snapshot,
        to_snapshot,
    )
    from .read import read_rules
    from .schema import json_schema
    from .timing import (
        ClockChange,
        CronTiming,
        IntervalTiming,
        OnceTiming,
        check_cron,
        clock_changes,
        due_between,
        next_due,
    )

__all__ = [
    "ClockChange",
    "CronRule",
    "CronTiming",
    "HeartbeatRule",
    "IntervalTiming",
    "OnceTiming",
    "ProjectTable",
    "Rule",
    "Rulebook",
    "SkillRule",
    "WebhookRule",
    "check_calls",
    "check_cron",
    "clock_changes",
    "due_between",
    "from_snapshot",
    "json_schema",
    "next_due",
    "read_rules",
    "to_snapshot",
]

# Fetched when first used: reading a file needs engines for expressions that a decorated function does not.
_PLACES = {
    "checks": ("check_calls",),
    "models": (
        "CronRule",
        "HeartbeatRule",
        "ProjectTable",
        "Rule",
        "Rulebook",
        "SkillRule",
        "WebhookRule",
        "from_snapshot",
        "to_snapshot",
    ),
    "read": ("read_rules",),
    "schema": ("json_schema",),
    "timing": (
        "ClockChange",
        "CronTiming",
        "IntervalTiming",
        "OnceTiming",
        "check_cron",
        "clock_changes",
        "due_between",
        "next_due",
    ),
}
_MODULE_OF = {name: module for module, names in _PLACES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_MODULE_OF[name]}", __name__), name)
