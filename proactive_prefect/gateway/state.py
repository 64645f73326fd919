"""`GET /api/v1/proactive/state`: how the project does, for operators and monitors."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime, timedelta
from typing import Any

from fastapi import APIRouter, Depends
from pydantic import BaseModel, Field

from ..firing.foreseen import next_runs
from ..prefect_api import PrefectApi
from ..prefect_api.deployments import DeployedRule, deployed_rules
from ..prefect_api.history import LIVE, Run, last_runs, runs_of
from ..prefect_api.links import run_url
from ..prefect_api.overview import count_states, pool_workers, server_version
from ..rules.models import Kind
from ..rules.state_names import MISSED
from .access import reader
from .problems import documented
from .service import Service, TheService

router = APIRouter(prefix="/api/v1/proactive", tags=["state"], dependencies=[Depends(reader)])

_DAY = timedelta(days=1)


class RunState(BaseModel):
    """One run, and the state it is in."""

    run_id: str
    state: str = Field(description="The state's name, such as Completed, Quiet, Skipped, Failed, Running.")
    message: str | None = Field(description="For Skipped: `code: text`.")
    at: datetime = Field(description="Since when it is in that state.")
    url: str | None = Field(description="The run in Prefect's UI.")


class Calls(BaseModel):
    """A webhook's calls since the gateway started."""

    accepted: int = 0
    skipped: int = Field(default=0, description="Of those that were answered with what became of them.")
    undeliverable: int = Field(default=0, description="Their webhook was deleted meanwhile.")
    repeated: int = Field(default=0, description="Deliveries that had come before.")
    greeted: int = Field(default=0, description="Pings and challenges, by which senders ask whether we are there.")
    failed: int = Field(default=0, description="Verified, but answered with an error.")
    mismatch: int = Field(default=0, description="Refused: another secret, or another body than was signed.")
    malformed: int = Field(default=0, description="Refused: a header that the scheme needs is missing or wrong.")
    late: int = Field(default=0, description="Refused: signed more than five minutes from this machine's time.")
    no_secret: int = Field(default=0, description="Refused: the webhook was closed.")
    outside: int = Field(default=0, description="Refused: from a network that is not among the rule's `callers`.")
    limited: int = Field(default=0, description="Verified, but more than a rate limit allows.")


class WebhookState(BaseModel):
    """How a webhook does."""

    open: bool = Field(description="Callers with the right secret get in.")
    problem: str | None = Field(description="Why it is closed. Callers see the same 401 as with a wrong secret.")
    calls: Calls


class RuleState(BaseModel):
    """How a rule does."""

    id: str
    kind: Kind
    project: str | None
    enabled: bool = Field(description="As declared.")
    paused: bool = Field(description="By an operator, in Prefect.")
    next_fire: datetime | None = Field(
        description="The next that its conditions let run. None while it is not enabled, paused, or never due again."
    )
    active_run: RunState | None = Field(description="The run that is at work; the oldest, if there are several.")
    missed: int = Field(description="Runs that wait for somebody to resume or cancel them.")
    last_outcome: RunState | None
    webhook: WebhookState | None = Field(description="Of webhook rules only.")


class WorkerState(BaseModel):
    """A worker, as Prefect knows it."""

    name: str
    status: str = Field(description="ONLINE or OFFLINE.")
    last_seen: datetime | None


class PoolState(BaseModel):
    """A work pool that rules run in."""

    name: str
    exists: bool
    online: int = Field(description="Workers that poll now. Without one, nothing in this pool runs.")
    workers: list[WorkerState]


class ServerState(BaseModel):
    """The Prefect server. While it does not answer, neither does this route: 503."""

    version: str
    answered_in: float = Field(description="Seconds that one small request took.")


class ProactiveState(BaseModel):
    """Everything at a glance."""

    enabled: bool = Field(description="Whether any rule is enabled.")
    at: datetime
    gateway_since: datetime
    refused_calls: int = Field(description="Calls for an unknown webhook or with a wrong secret, since the start.")
    runs_by_state: dict[str, int] = Field(description="Runs of all rules that were due in the last 24 hours.")
    server: ServerState
    pools: list[PoolState]
    rules: list[RuleState]


@router.get("/state", responses=documented(401, 502, 503))
async def state(service: TheService) -> ProactiveState:
    """Each rule with its next fire, last outcome and active run; workers, server and counters."""
    api, now = service.looking, datetime.now(UTC)
    deployed = await deployed_rules(api)
    ids = [found.deployment_id for found in deployed]
    pools = sorted({found.work_pool for found in deployed if found.work_pool is not None})
    server, last, open_now, counts = await asyncio.gather(
        _server(api), last_runs(api, ids), runs_of(api, ids, types=LIVE), count_states(api, ids, now - _DAY)
    )
    workers = await asyncio.gather(*(_pool(api, pool) for pool in pools))
    by_rule: dict[str, list[Run]] = {}
    for run in reversed(open_now):
        by_rule.setdefault(run["deployment_id"], []).append(run)
    return ProactiveState(
        enabled=any(found.rule.enabled for found in deployed),
        at=now,
        gateway_since=service.started_at,
        refused_calls=service.refused,
        runs_by_state=counts,
        server=server,
        pools=workers,
        rules=[
            _rule(service, found, last.get(found.deployment_id), by_rule.get(found.deployment_id, []), now)
            for found in deployed
        ],
    )


def _rule(service: Service, found: DeployedRule, last: Run | None, at_work: list[Run], now: datetime) -> RuleState:
    rule = found.rule
    due = next_runs(rule, now, 1) if found.active else []
    busy = [run for run in at_work if run["state_type"] != "PAUSED"]
    return RuleState(
        id=rule.id,
        kind=rule.kind,
        project=found.project,
        enabled=rule.enabled,
        paused=found.paused,
        next_fire=due[0] if due else None,
        active_run=_run(busy[0]) if busy else None,
        missed=sum(run["state_name"] == MISSED for run in at_work),
        last_outcome=_run(last) if last else None,
        webhook=_webhook(service, rule.id) if rule.kind == "webhook" else None,
    )


def _webhook(service: Service, rule_id: str) -> WebhookState:
    door = service.doors.get(rule_id)
    return WebhookState(
        open=door is not None and door.secret is not None,
        problem="the gateway does not know it yet" if door is None else door.closed,
        calls=Calls.model_validate(service.counters[rule_id]),
    )


def _run(run: Run) -> RunState:
    state: dict[str, Any] = run["state"]
    return RunState(
        run_id=run["id"],
        state=state["name"],
        message=state.get("message"),
        at=state["timestamp"],
        url=run_url(run["id"]),
    )


async def _server(api: PrefectApi) -> ServerState:
    began = time.monotonic()
    version = await server_version(api)
    return ServerState(version=version, answered_in=round(time.monotonic() - began, 4))


async def _pool(api: PrefectApi, name: str) -> PoolState:
    found = await pool_workers(api, name)
    workers = [
        WorkerState(name=worker["name"], status=worker["status"], last_seen=worker.get("last_heartbeat_time"))
        for worker in found or []
    ]
    online = sum(worker.status == "ONLINE" for worker in workers)
    return PoolState(name=name, exists=found is not None, online=online, workers=workers)
