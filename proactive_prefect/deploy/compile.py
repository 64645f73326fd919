"""Rules to deployments: pure, and equal for equal rules."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from datetime import UTC
from pathlib import Path
from typing import Any, assert_never

from ..prefect_api.deployments import KIND_LABEL, PROJECT_LABEL, RULE_LABEL, TAG
from ..rules.actions import CommandAction, DeploymentAction, HttpAction, PromptAction, PythonAction
from ..rules.models import Kind, Rule, RuleBase, Rulebook, to_snapshot
from ..rules.policies import Overlap
from ..rules.timing import CronTiming, IntervalTiming, OnceTiming, Timing

QUEUE_OF = {"high": "high", "normal": "default", "low": "low"}

# What Prefect computes from the signature that all four flows have; a test holds it against `prefect deploy`.
PARAMETER_SCHEMA: dict[str, Any] = {
    "title": "Parameters",
    "type": "object",
    "properties": {
        "rule": {"position": 0, "title": "rule", "type": "string"},
        "payload": {
            "default": None,
            "position": 1,
            "title": "payload",
            "anyOf": [{"type": "string"}, {"type": "null"}],
        },
    },
    "required": ["rule"],
}


@dataclass(frozen=True)
class Project:
    """The project whose rules are deployed. `root` is the folder that runs work in, on the worker's machine."""

    name: str
    root: Path
    work_pool: str
    """The work pool of rules that name none."""


@dataclass(frozen=True)
class ScheduleSpec:
    """A schedule in Prefect's JSON form."""

    schedule: dict[str, Any]
    active: bool


@dataclass(frozen=True)
class DeploymentSpec:
    """Everything that Prefect shall keep about one rule."""

    name: str
    flow_name: Kind
    version: str
    """Of the rule: equal for equal rules. Prefect writes it on each run."""
    description: str
    entrypoint: str
    pull_steps: list[dict[str, Any]]
    parameters: dict[str, Any]
    tags: list[str]
    work_pool_name: str
    work_queue_name: str
    job_variables: dict[str, Any]
    concurrency_limit: int | None
    concurrency_options: dict[str, Any] | None
    schedule: ScheduleSpec | None
    labels: dict[str, str]
    rule: Rule = field(compare=False, repr=False)
    enforce_parameter_schema: bool = True
    parameter_openapi_schema: dict[str, Any] = field(default_factory=lambda: PARAMETER_SCHEMA, repr=False)

    def fields(self) -> dict[str, Any]:
        """What can be changed in place, under Prefect's names."""
        return {
            "version": self.version,
            "description": self.description,
            "entrypoint": self.entrypoint,
            "pull_steps": self.pull_steps,
            "parameters": self.parameters,
            "tags": self.tags,
            "work_pool_name": self.work_pool_name,
            "work_queue_name": self.work_queue_name,
            "job_variables": self.job_variables,
            "concurrency_limit": self.concurrency_limit,
            "concurrency_options": self.concurrency_options,
            "enforce_parameter_schema": self.enforce_parameter_schema,
            "parameter_openapi_schema": self.parameter_openapi_schema,
        }


def compile_rules(rulebook: Rulebook, project: Project) -> tuple[DeploymentSpec, ...]:
    """One DeploymentSpec for each rule, in the order of the file. Where the project is off, every rule is."""
    on = rulebook.proactive.enabled
    return tuple(
        _compile(rule if on else rule.model_copy(update={"enabled": False}), project) for rule in rulebook.rules
    )


def _compile(rule: Rule, project: Project) -> DeploymentSpec:
    snapshot = to_snapshot(rule)
    limit = _race_lock(rule.on_overlap)
    return DeploymentSpec(
        name=rule.id,
        flow_name=rule.kind,
        version=hashlib.sha256(snapshot.encode()).hexdigest()[:12],
        description=_literal(rule.description or _describe(rule)),
        entrypoint=f"flows/{rule.kind}.py:{rule.kind}",
        pull_steps=[{"prefect.deployments.steps.set_working_directory": {"directory": str(project.root)}}],
        parameters={"rule": snapshot, "payload": None},
        tags=list(dict.fromkeys([TAG, rule.kind, *map(_literal, rule.tags)])),
        work_pool_name=rule.work_pool or project.work_pool,
        work_queue_name=QUEUE_OF[rule.priority],
        job_variables=rule.job_variables,
        concurrency_limit=limit,
        # ENQUEUE: a second run waits at the lock until the gate can say why it does not run (docs/adr/0001).
        concurrency_options=None if limit is None else {"collision_strategy": "ENQUEUE"},
        schedule=None if rule.timing is None else ScheduleSpec(prefect_schedule(rule.timing), rule.enabled),
        labels={PROJECT_LABEL: project.name, RULE_LABEL: rule.id, KIND_LABEL: rule.kind},
        rule=rule,
    )


def prefect_schedule(timing: Timing) -> dict[str, Any]:
    """The timing as Prefect's schedule, in the form in which Prefect gives it back."""
    if isinstance(timing, CronTiming):
        return {"cron": timing.prefect_cron, "timezone": timing.timezone, "day_or": True}
    if isinstance(timing, IntervalTiming):
        anchor = timing.prefect_anchor.isoformat().replace("+00:00", "Z")
        return {"interval": timing.every.total_seconds(), "anchor_date": anchor, "timezone": timing.timezone}
    if isinstance(timing, OnceTiming):
        start = timing.at.astimezone(UTC).strftime("%Y%m%dT%H%M%S")
        return {"rrule": f"DTSTART:{start}\nRRULE:FREQ=DAILY;COUNT=1", "timezone": "UTC"}
    assert_never(timing)


def _race_lock(overlap: Overlap) -> int | None:
    match overlap:
        case "skip" | "cancel_running":
            return 2
        case "queue_one" | "queue_all":
            return 1
        case "allow":
            return None
        case _:
            assert_never(overlap)


def _describe(rule: RuleBase) -> str:
    """What Prefect shows for a rule without a description: never empty, since Prefect would fill in the flow's."""
    match rule.action:
        case PythonAction(call=call):
            return f"Calls {call}."
        case PromptAction():
            return "Gives a prompt to an agent."
        case HttpAction(method=method):
            return f"Sends an HTTP {method}."
        case CommandAction(argv=argv):
            return f"Runs {argv[0]}."
        case DeploymentAction(name=name):
            return f"Runs the deployment {name}."
        case _:
            assert_never(rule.action)


def _literal(text: str) -> str:
    """`prefect deploy` takes what stands in double braces for a template: keep them apart."""
    return text.replace("{{", "{ {")
