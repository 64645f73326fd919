"""Heartbeats, cron rules, scheduled skills and webhooks, declared once, run by Prefect."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .firing.results import Context, HeartbeatResult
    from .rules.decorators import cron, heartbeat, skill, webhook
    from .sdk import AsyncProactive, Proactive

__all__ = ["AsyncProactive", "Context", "HeartbeatResult", "Proactive", "cron", "heartbeat", "skill", "webhook"]

# A module that declares a rule must not pay for Prefect's import, so each name is fetched when it is first used.
_PLACES = {
    "AsyncProactive": ".sdk",
    "Context": ".firing.results",
    "HeartbeatResult": ".firing.results",
    "Proactive": ".sdk",
    "cron": ".rules.decorators",
    "heartbeat": ".rules.decorators",
    "skill": ".rules.decorators",
    "webhook": ".rules.decorators",
}


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_PLACES[name], __name__), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
