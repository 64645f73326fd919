"""What `apply` would do, found by reading only."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from ..prefect_api.client import PrefectApi
from ..prefect_api.deployments import Deployment, read_deployments
from ..prefect_api.pools import QUEUES, read_queues
from .alerts import AlertPlan, plan_alerts
from .compile import DeploymentSpec, Project
from .diff import Change, compare
from .forecast import Forecast, forecast

PoolType = Literal["process", "proactive"]


@dataclass(frozen=True)
class PoolChange:
    """A pool to create, or queues to add to one that is there."""

    name: str
    type: PoolType
    create: bool
    queues: tuple[str, ...]


@dataclass(frozen=True)
class Obstacle:
    """Why this plan cannot be applied: one line, and what to do.

    `alerts_of`: only alerts of these rules are in the way, by their channel.
    """

    message: str
    hint: str
    alerts_of: tuple[str, ...] = ()


@dataclass(frozen=True)
class Plan:
    """The difference between the rules and the server, and what the rules will do."""

    project: Project
    now: datetime
    pools: tuple[PoolChange, ...]
    added: tuple[DeploymentSpec, ...]
    changed: tuple[Change, ...]
    removed: tuple[Deployment, ...]
    unchanged: int
    alerts: AlertPlan
    obstacles: tuple[Obstacle, ...]
    forecast: Forecast

    @property
    def differs(self) -> bool:
        """Whether `apply` would write anything."""
        return bool(self.pools or self.added or self.changed or self.removed or self.alerts.differs)

    @property
    def writes(self) -> int:
        """How many steps `apply` would take, for a progress bar."""
        return len(self.pools) + len(self.added) + len(self.changed) + len(self.removed) + self.alerts.writes

    def to_json(self) -> dict[str, Any]:
        """For `proactive plan --json`: instants as ISO 8601."""
        return {
            "project": self.project.name,
            "differs": self.differs,
            "added": [f"{spec.flow_name}/{spec.name}" for spec in self.added],
            "changed": [
                {
                    "rule": change.spec.name,
                    "kind": change.spec.flow_name,
                    "adopted": change.adopt,
                    "fields": [{"field": f.field, "before": f.before, "after": f.after} for f in change.shown],
                }
                for change in self.changed
            ],
            "removed": [f"{found.flow_name}/{found.name}" for found in self.removed],
            "unchanged": self.unchanged,
            "pools": [
                {"name": pool.name, "type": pool.type, "create": pool.create, "queues": list(pool.queues)}
                for pool in self.pools
            ],
            "alerts": self.alerts.to_json(),
            "obstacles": [{"message": found.message, "hint": found.hint} for found in self.obstacles],
            "runs_a_day": self.forecast.runs_a_day,
            "next": [
                {
                    "rule": fire.rule_id,
                    "due": fire.due and fire.due.isoformat(),
                    "local": fire.local and fire.local.isoformat(),
                    "runs_a_day": fire.runs_a_day,
                }
                for fire in self.forecast.fires
            ],
            "clock_changes": [
                {
                    "timezone": warning.timezone,
                    "kind": warning.change.kind,
                    "at": warning.change.at.isoformat(),
                    "from": warning.change.start.isoformat(),
                    "to": warning.change.end.isoformat(),
                    "rules": list(warning.rules),
                }
                for warning in self.forecast.clock_warnings
            ],
            "collisions": [
                {"minute": found.minute.isoformat(), "rules": list(found.rules)} for found in self.forecast.collisions
            ],
        }


async def make_plan(
    api: PrefectApi,
    specs: Sequence[DeploymentSpec],
    project: Project,
    *,
    pool_type: PoolType = "process",
    now: datetime | None = None,
) -> Plan:
    """Compare `specs` with the server. Reads only. Raises Refused, PrefectUnreachable.

    `pool_type` is the type of work pools that have to be created.
    """
    now = now or datetime.now(UTC)
    there = {(found.flow_name, found.name): found for found in await read_deployments(api)}
    added: list[DeploymentSpec] = []
    changed: list[Change] = []
    obstacles: list[Obstacle] = []
    unchanged = 0
    for spec in specs:
        found = there.pop((spec.flow_name, spec.name), None)
        if found is None:
            added.append(spec)
        elif obstacle := _foreign(found, project):
            obstacles.append(obstacle)
        elif change := compare(spec, found):
            changed.append(change)
        else:
            unchanged += 1
    obstacles += [obstacle for spec in added if (obstacle := _other_kind(spec, there.values(), project))]
    alerts = await plan_alerts(api, specs, project.name)
    return Plan(
        project=project,
        now=now,
        pools=tuple(await _pools(api, specs, pool_type)),
        added=tuple(added),
        changed=tuple(changed),
        removed=tuple(found for found in there.values() if found.project == project.name),
        unchanged=unchanged,
        alerts=alerts,
        obstacles=(*obstacles, *(Obstacle(found.message, found.hint, found.rules) for found in alerts.missing)),
        forecast=forecast((spec.rule for spec in specs), now),
    )


def _other_kind(spec: DeploymentSpec, there: Iterable[Deployment], project: Project) -> Obstacle | None:
    """Ids are unique over all kinds. One of this project that is there still, and of another kind, is removed."""
    for found in there:
        if found.name == spec.name and found.is_a_rule and found.project != project.name:
            whose = f" of the project {found.project!r}" if found.project else ""
            return Obstacle(
                f"there is a {found.flow_name} rule {spec.name!r} already{whose}",
                f"Rename the rule, or delete the other one: prefect deployment delete {found.flow_name}/{found.name}",
            )
    return None


def _foreign(found: Deployment, project: Project) -> Obstacle | None:
    name = f"{found.flow_name}/{found.name}"
    if found.project == project.name or (found.project is None and found.is_a_rule):
        return None
    if found.project is None:
        return Obstacle(
            f"the deployment {name} is there already and was not made by proactive",
            f"Rename the rule {found.name!r}, or delete the deployment: prefect deployment delete {name}",
        )
    return Obstacle(
        f"the deployment {name} belongs to the project {found.project!r}, and this one is {project.name!r}",
        f'Rename the rule {found.name!r}, or say [proactive] project = "{found.project}" if it is the same project.',
    )


async def _pools(api: PrefectApi, specs: Iterable[DeploymentSpec], pool_type: PoolType) -> list[PoolChange]:
    wanted: dict[str, set[str]] = {}
    for spec in specs:
        wanted.setdefault(spec.work_pool_name, set()).add(spec.work_queue_name)
    there = await read_queues(api, wanted) if wanted else {}
    changes = []
    for name, used in wanted.items():
        create = name not in there
        missing = set(QUEUES) - {"default"} if create else used - there[name]
        if create or missing:
            changes.append(PoolChange(name, pool_type, create, tuple(sorted(missing, key=QUEUES.__getitem__))))
    return changes
