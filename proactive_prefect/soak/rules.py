"""The rules of a soak: one of each kind, due often, that do next to nothing."""

from __future__ import annotations

from typing import Any

from ..rules.models import Rulebook

PROJECT = "proactive-soak"
HOOK = "soak-webhook"
_COMMON: dict[str, Any] = {
    "action": {"type": "command", "argv": ["true"]},
    "description": "A rule of `proactive soak`, which takes it away again.",
    "on_overlap": "allow",
    "retries": 0,
    "owner": PROJECT,
}
_RULES: tuple[dict[str, Any], ...] = (
    {"kind": "heartbeat", "id": "soak-heartbeat", "every": "10s"},
    {"kind": "cron", "id": "soak-cron", "cron": "* * * * *"},
    {"kind": "skill", "id": "soak-skill", "skill": "soak", "schedule": {"type": "interval", "every": "15s"}},
    {"kind": "webhook", "id": HOOK},
)


def soak_rules() -> Rulebook:
    """All of them, switched on."""
    rules = [{**_COMMON, **rule} for rule in _RULES]
    return Rulebook.model_validate({"proactive": {"enabled": True}, "rules": rules})
