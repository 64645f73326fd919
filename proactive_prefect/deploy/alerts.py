"""`notifications.on_*` as Prefect automations: one for each outcome and channel, over all rules that name it.

Runs are matched by the type of their state, and by its name where a type has several meanings: a run that the gate
skipped is Cancelled by type and never a failure, and a quiet one is Completed and never a success to tell about.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from ..firing.outbound import leads_inside
from ..prefect_api.automations import (
    create_automation,
    delete_automation,
    project_tags,
    read_automations,
    update_automation,
)
from ..prefect_api.blocks import Block, find_block
from ..prefect_api.client import PrefectApi
from ..prefect_api.deployments import read_deployments
from ..rules.state_names import MISSED, SKIPPED
from ..settings import Settings
from .compile import DeploymentSpec

Outcome = Literal["on_failure", "on_success", "on_skip", "on_missed"]

_STATES: dict[Outcome, dict[str, list[str]]] = {
    "on_failure": {"prefect.state-type": ["FAILED", "CRASHED"]},  # a run that timed out is FAILED by type
    "on_success": {"prefect.state-type": ["COMPLETED"], "prefect.state-name": ["Completed"]},
    "on_skip": {"prefect.state-type": ["CANCELLED"], "prefect.state-name": [SKIPPED]},
    "on_missed": {"prefect.state-type": ["PAUSED"], "prefect.state-name": [MISSED]},
}
_WORDS: dict[Outcome, str] = {
    "on_failure": "failures",
    "on_success": "successes",
    "on_skip": "skipped runs",
    "on_missed": "missed runs",
}
_SUBJECT = '{{ deployment.name }}: {{ event.resource["prefect.state-name"] }}'
_BODY = '{{ event.resource["prefect.state-message"] }}\n{{ flow_run|ui_url }}'
_PAYLOAD = (
    '{"rule": {{ deployment.name|tojson }}, "kind": {{ flow.name|tojson }},'
    ' "state": {{ event.resource["prefect.state-name"]|tojson }},'
    ' "message": {{ event.resource["prefect.state-message"]|tojson }},'
    ' "due": {{ flow_run.expected_start_time|string|tojson }}, "flow_run_id": {{ flow_run.id|string|tojson }},'
    ' "url": {{ flow_run|ui_url|string|tojson }}}'
)


@dataclass(frozen=True)
class Alert:
    """Tell `channel` of `outcome`s of `rules`, which are (kind, id)."""

    outcome: Outcome
    channel: str
    rules: tuple[tuple[str, str], ...]
    block: Block

    def name(self, project: str) -> str:
        return f"proactive {project}: {_WORDS[self.outcome]} to {self.channel}"


@dataclass(frozen=True)
class NoChannel:
    """A channel that cannot be used, and the ids of the rules that name it."""

    message: str
    hint: str
    rules: tuple[str, ...]


@dataclass(frozen=True)
class AlertPlan:
    """What is to do about alerts. `changed` and `removed` are the automations' ids, with their names to show."""

    project: str
    added: tuple[Alert, ...]
    changed: tuple[tuple[dict[str, Any], Alert], ...]
    removed: tuple[dict[str, Any], ...]
    missing: tuple[NoChannel, ...]

    @property
    def differs(self) -> bool:
        return self.writes > 0

    @property
    def writes(self) -> int:
        return len(self.added) + len(self.changed) + len(self.removed)

    def to_json(self) -> dict[str, list[str]]:
        return {
            "added": [alert.name(self.project) for alert in self.added],
            "changed": [alert.name(self.project) for _, alert in self.changed],
            "removed": [found["name"] for found in self.removed],
        }


async def plan_alerts(api: PrefectApi, specs: Sequence[DeploymentSpec], project: str) -> AlertPlan:
    """Compare what the rules' notifications ask for with the project's automations. Reads only."""
    alerts, missing = await _wanted(api, specs)
    ids = await _deployment_ids(api) if alerts else {}
    there: dict[str, list[dict[str, Any]]] = {}
    for found in await read_automations(api, project):
        there.setdefault(found["name"], []).append(found)
    added, changed = [], []
    for alert in alerts:
        same = there.get(alert.name(project), [])
        if not same:
            added.append(alert)
            continue
        found = same.pop(0)
        if not _is(found, _automation(alert, project, ids, enabled=found["enabled"])):
            changed.append((found, alert))
    removed = [found for rest in there.values() for found in rest]
    return AlertPlan(project, tuple(added), tuple(changed), tuple(removed), tuple(missing))


async def apply_alerts(api: PrefectApi, plan: AlertPlan, on_progress: Callable[[str], None]) -> None:
    """Create, change in place and delete the project's automations; one that an operator disabled stays so."""
    ids = await _deployment_ids(api) if plan.added or plan.changed else {}
    for alert in plan.added:
        await create_automation(api, _automation(alert, plan.project, ids, enabled=True))
        on_progress(f"added alert {alert.name(plan.project)}")
    for found, alert in plan.changed:
        body = _automation(alert, plan.project, ids, enabled=found["enabled"])
        await update_automation(api, found["id"], body)
        on_progress(f"changed alert {alert.name(plan.project)}")
    for found in plan.removed:
        await delete_automation(api, found["id"])
        on_progress(f"removed alert {found['name']}")


async def _wanted(api: PrefectApi, specs: Sequence[DeploymentSpec]) -> tuple[list[Alert], list[NoChannel]]:
    rules: dict[tuple[Outcome, str], list[tuple[str, str]]] = {}
    for spec in specs:
        for outcome in _STATES:
            for channel in dict.fromkeys(getattr(spec.rule.notifications, outcome)):
                rules.setdefault((outcome, channel), []).append((spec.flow_name, spec.name))
    channels = list(dict.fromkeys(channel for _, channel in rules))
    found = await asyncio.gather(*(find_block(api, *channel.split("/")) for channel in channels))
    blocks = dict(zip(channels, found, strict=True))
    allowed = Settings().outbound_allow
    urls = {channel: block.url for channel, block in blocks.items() if block is not None and block.url}
    led = await asyncio.gather(*(leads_inside(url, allowed) for url in urls.values()))
    inside = {channel for channel, yes in zip(urls, led, strict=True) if yes}
    alerts: list[Alert] = []
    missing: list[NoChannel] = []
    for (outcome, channel), named in rules.items():
        block = blocks[channel]
        if block is not None and _can_tell(channel, block) and channel not in inside:
            alerts.append(Alert(outcome, channel, tuple(sorted(named)), block))
            continue
        where = f"rule {named[0][1]!r} (notifications.{outcome})" + (f" and {len(named) - 1} more" if named[1:] else "")
        kind = channel.split("/")[0]
        if block is None:
            message = f"{where}: there is no block {channel!r} in Prefect"
            hint = f"Create it in Prefect's UI under Blocks, or: prefect block create {kind}"
        elif channel in inside:
            message = f"{where}: the block {channel!r} calls this machine or a private network"
            hint = (
                "Allow that network by PROACTIVE_OUTBOUND_ALLOW. Where a block's allow_private_urls is off, Prefect "
                "itself looks, at each call."
            )
        else:
            message = f"{where}: the block {channel!r} cannot send a message"
            hint = 'Name a notification block ("slack-webhook/ops", "email/…", "custom-webhook/…") or a "webhook/…".'
        missing.append(NoChannel(message, hint, tuple(rule_id for _, rule_id in named)))
    return alerts, missing


def _can_tell(channel: str, block: Block) -> bool:
    return channel.startswith("webhook/") or "notify" in block.capabilities


async def _deployment_ids(api: PrefectApi) -> dict[tuple[str, str], str]:
    return {(found.flow_name, found.name): found.id for found in await read_deployments(api)}


def _automation(alert: Alert, project: str, ids: dict[tuple[str, str], str], *, enabled: bool) -> dict[str, Any]:
    # A rule that is still to be deployed has no id yet: the automation differs, and `apply` writes it afterwards.
    deployments = sorted(f"prefect.deployment.{ids.get(rule, 'to-be-created')}" for rule in alert.rules)
    action: dict[str, Any] = {"block_document_id": alert.block.id}
    if alert.channel.startswith("webhook/"):
        action |= {"type": "call-webhook", "payload": _PAYLOAD}
    else:
        action |= {"type": "send-notification", "subject": _SUBJECT, "body": _BODY}
    return {
        "name": alert.name(project),
        "description": f"From notifications.{alert.outcome} of the rules of {project}; kept by `proactive apply`.",
        "enabled": enabled,
        "tags": project_tags(project),
        "trigger": {
            "type": "event",
            "posture": "Reactive",
            "match": {"prefect.resource.id": "prefect.flow-run.*", **_STATES[alert.outcome]},
            "match_related": {"prefect.resource.role": "deployment", "prefect.resource.id": deployments},
            "expect": ["prefect.flow-run.*"],
            "for_each": ["prefect.resource.id"],
            "threshold": 1,
            "within": 0,
        },
        "actions": [action],
    }


def _is(found: dict[str, Any], wanted: dict[str, Any]) -> bool:
    """Whether an automation is as wanted. Prefect adds keys of its own, and orders and wraps lists as it likes."""
    return all(_like(found.get(key), value) for key, value in wanted.items())


def _like(found: Any, wanted: Any) -> bool:
    if isinstance(wanted, dict):
        return isinstance(found, dict) and all(_like(found.get(key), value) for key, value in wanted.items())
    if isinstance(wanted, list) and wanted and isinstance(wanted[0], dict):
        return isinstance(found, list) and len(found) == len(wanted) and all(map(_like, found, wanted))
    if isinstance(wanted, list):
        return sorted(found if isinstance(found, list) else [found]) == sorted(wanted)
    return bool(found == wanted)
