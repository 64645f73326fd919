"""What differs between a rule's deployment as it should be and as it is: pure, field by field, readable."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from ..prefect_api.deployments import PROJECT_LABEL, Deployment
from ..rules.durations import format_duration
from .compile import DeploymentSpec

# How a rule's own keys stand in Prefect's fields: their difference is told once, under the rule's name for it.
_SAID_BY_THE_RULE = {
    "version": None,
    "description": "description",
    "tags": "tags",
    "work_pool_name": "work_pool",
    "work_queue_name": "priority",
    "job_variables": "job_variables",
    "concurrency_limit": "on_overlap",
    "concurrency_options": "on_overlap",
}


@dataclass(frozen=True)
class FieldChange:
    """One difference: a rule's key ("conditions.active_hours.start") or a field of Prefect, before and after."""

    field: str
    before: Any
    after: Any

    def __str__(self) -> str:
        return f"{self.field}: {_show(self.before)} → {_show(self.after)}"


@dataclass(frozen=True)
class Change:
    """A deployment to change in place."""

    spec: DeploymentSpec
    deployment: Deployment
    fields: dict[str, Any]
    """The fields to PATCH."""
    schedule: bool
    """The schedule is to be created, changed or deleted."""
    active: bool
    """Whether the schedule shall be active afterwards."""
    resume: bool
    """The file has switched the rule on: a pause of the deployment ends."""
    adopt: bool
    """It has no label of this project yet: `prefect deploy` made it from a rendered file."""
    shown: tuple[FieldChange, ...]

    @property
    def moved(self) -> bool:
        """The times at which the rule is due are others than before."""
        before, after = self.deployment.schedule, self.spec.schedule
        return (before["schedule"] if before else None) != (after.schedule if after else None)

    @property
    def steady(self) -> bool:
        """The rule's occurrences run before and after, at the same times, from the same schedule."""
        before = self.deployment.schedule
        running = before is not None and before["active"] and not self.deployment.paused
        return running and self.active and not self.moved and not self.adopt


def compare(spec: DeploymentSpec, found: Deployment) -> Change | None:
    """What must change for `found` to be what `spec` says, or None.

    Whether an occurrence runs belongs to the operator as soon as it is deployed: a pause in Prefect stays until
    `enabled` changes in the file. What was applied last is what the snapshot in the parameters says.
    """
    before, after = found.fields(), spec.fields()
    fields = {name: value for name, value in after.items() if not _same(name, before[name], value)}
    if "parameters" not in fields:
        fields.pop("version", None)
    if "work_pool_name" in fields or "work_queue_name" in fields:
        fields |= {name: after[name] for name in ("work_pool_name", "work_queue_name")}

    was_enabled = (found.snapshot or {}).get("enabled")
    switched = was_enabled != spec.rule.enabled
    schedule, active = False, spec.schedule is not None and spec.schedule.active
    if spec.schedule is None:
        schedule = found.schedule is not None
    elif found.schedule is None:
        schedule = True
    else:
        active = spec.rule.enabled if switched else found.schedule["active"]
        schedule = found.schedule["schedule"] != spec.schedule.schedule or found.schedule["active"] != active
    resume = switched and spec.rule.enabled and found.paused
    adopt = found.project is None
    if not (fields or schedule or resume or adopt):
        return None
    return Change(spec, found, fields, schedule, active, resume, adopt, tuple(_shown(spec, found, fields, adopt)))


def _shown(spec: DeploymentSpec, found: Deployment, fields: dict[str, Any], adopt: bool) -> list[FieldChange]:
    old, new = _flat(found.snapshot or {}), _flat(json.loads(spec.parameters["rule"]))
    said = {key.partition(".")[0] for key in old.keys() | new.keys() if old.get(key) != new.get(key)}
    changes = [
        FieldChange(key, old.get(key), new.get(key))
        for key in [*new, *(key for key in old if key not in new)]
        if old.get(key) != new.get(key)
    ]
    before = found.fields()
    for name, value in fields.items():
        if name == "parameters" or _same(name, before[name], value):
            continue
        if name in _SAID_BY_THE_RULE and (_SAID_BY_THE_RULE[name] is None or _SAID_BY_THE_RULE[name] in said):
            continue
        if name == "parameter_openapi_schema":
            changes.append(FieldChange(name, "as it was", "as the flow has it"))
            continue
        changes.append(FieldChange(name, before[name], value))
    was = found.schedule["schedule"] if found.schedule else None
    now = spec.schedule.schedule if spec.schedule else None
    if was != now and not said & {"every", "cron", "schedule", "anchor", "timezone", "splay"}:
        changes.append(FieldChange("schedule", describe_schedule(was), describe_schedule(now)))
    if adopt:
        changes.append(FieldChange(f"label {PROJECT_LABEL}", None, spec.labels[PROJECT_LABEL]))
    return changes


def describe_schedule(schedule: dict[str, Any] | None) -> str | None:
    """A Prefect schedule in words: "every 5m", "cron 0 9 * * * (Europe/Berlin)"."""
    if schedule is None:
        return None
    if "interval" in schedule:
        every = format_duration(timedelta(seconds=schedule["interval"]))
        anchor = datetime.fromisoformat(schedule["anchor_date"])
        return f"every {every} from {anchor:%Y-%m-%d %H:%M:%S} ({schedule['timezone']})"
    if "cron" in schedule:
        return f"cron {schedule['cron']} ({schedule['timezone']})"
    return str(schedule.get("rrule", schedule)).replace("\n", " ")


def _same(name: str, before: Any, after: Any) -> bool:
    if name == "parameters" and isinstance(before, dict):
        # The snapshot is JSON: the same rule may be written in another order.
        return _parsed(before) == _parsed(after)
    return bool(before == after)


def _parsed(parameters: dict[str, Any]) -> dict[str, Any]:
    try:
        return parameters | {"rule": json.loads(parameters["rule"])}
    except (KeyError, TypeError, ValueError):
        return parameters


def _flat(value: dict[str, Any], path: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, item in value.items():
        flat |= _flat(item, f"{path}{key}.") if isinstance(item, dict) and item else {f"{path}{key}": item}
    return flat


def _show(value: Any) -> str:
    text = "nothing" if value in (None, "", [], {}) else value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= 120 else f"{text[:119]}…"
