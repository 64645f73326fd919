"""`/api/v1/proactive/rules`: the rules as the ledger knows them, and what an operator may tell them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Annotated, Literal, cast
from uuid import uuid4

from fastapi import APIRouter, Depends, Header, Path, Query
from pydantic import BaseModel, Field, ValidationError

from ..errors import PrefectError, UnknownRule
from ..firing.foreseen import next_runs
from ..ledger.recent import last_occurrences
from ..ledger.reconcile import reconcile_rules
from ..ledger.tables import Occurrence, Outcome, RuleVersion
from ..ledger.versions import latest_versions
from ..prefect_api.links import deployment_url, run_url
from ..prefect_api.pausing import pause_rule, resume_rule
from ..prefect_api.runs import create_run
from ..rules.models import Kind, Rule, from_snapshot
from ..rules.phrases import timezone_of, when
from .access import operator, reader
from .problems import documented
from .service import Service, TheService

router = APIRouter(prefix="/api/v1/proactive/rules", tags=["rules"])

FIRES = 5
OUTCOMES = 12

_RuleId = Annotated[str, Path(min_length=1, max_length=200, description="The rule's id.")]


class Became(BaseModel):
    """One occurrence, and what became of it."""

    due: datetime
    outcome: Outcome = Field(description="`expected`: its run is at work.")
    reason: str
    started_at: datetime | None
    ended_at: datetime | None
    run_id: str | None


class RuleCard(BaseModel):
    """A rule at a glance."""

    id: str
    kind: Kind
    description: str
    owner: str
    tags: list[str]
    when: str = Field(description="In words.", examples=["every 5m", "0 9 * * mon-fri (Europe/Berlin)"])
    timezone: str
    status: Literal["active", "paused", "disabled"] = Field(
        description="paused: by an operator, in Prefect. disabled: in the rules file."
    )
    next_fires: list[datetime] = Field(
        description=f"At most {FIRES} that its conditions let run; none while not active."
    )
    last: list[Became] = Field(description=f"The latest {OUTCOMES} occurrences, the oldest first.")
    url: str | None = Field(description="Its deployment in Prefect's UI.")


class Rules(BaseModel):
    """The rules that are deployed."""

    at: datetime
    run_url: str | None = Field(description="Where Prefect's UI shows a run; {run_id} stands for its id.")
    rules: list[RuleCard]


class Told(BaseModel):
    """What was done."""

    rule: str
    done: Literal["paused", "resumed", "triggered"]
    run_id: str | None = None
    url: str | None = None


@router.get("", responses=documented(401, 422), dependencies=[Depends(reader)])
async def read_rules(
    service: TheService,
    rule: Annotated[list[str] | None, Query(max_length=500, description="Only these; may be repeated.")] = None,
) -> Rules:
    """Each rule with its next fires and what became of it lately, by id. Prefect is not asked."""
    now = datetime.now(UTC)
    async with service.ledger.read() as session:
        latest = await latest_versions(session)
        wanted = [one for one in latest.values() if one.status != "deleted" and (rule is None or one.rule_id in rule)]
        last = await last_occurrences(session, [one.rule_id for one in wanted], OUTCOMES)
    cards = [_card(one, last.get(one.rule_id, ()), now) for one in sorted(wanted, key=lambda one: one.rule_id)]
    return Rules(at=now, run_url=run_url("{run_id}"), rules=[card for card in cards if card is not None])


@router.post("/{rule_id}/pause", responses=documented(401, 403, 404, 502, 503), dependencies=[Depends(operator)])
async def pause(rule_id: _RuleId, service: TheService) -> Told:
    """Make no more scheduled runs of it until it is resumed, as the switch in Prefect's UI does."""
    deployment_id, _ = await _deployed(service, rule_id)
    await pause_rule(service.looking, deployment_id)
    await _note(service)
    return Told(rule=rule_id, done="paused")


@router.post("/{rule_id}/resume", responses=documented(401, 403, 404, 502, 503), dependencies=[Depends(operator)])
async def resume(rule_id: _RuleId, service: TheService) -> Told:
    """Resume it. One that the rules file disables does not fire all the same."""
    deployment_id, rule = await _deployed(service, rule_id)
    await resume_rule(service.looking, deployment_id, enabled=rule.enabled)
    await _note(service)
    return Told(rule=rule_id, done="resumed")


@router.post("/{rule_id}/run", responses=documented(401, 403, 404, 502, 503), dependencies=[Depends(operator)])
async def run_now(
    rule_id: _RuleId,
    service: TheService,
    idempotency_key: Annotated[
        str | None, Header(min_length=1, max_length=200, description="Asked twice, run once.")
    ] = None,
) -> Told:
    """Run it now, as a run of its own."""
    deployment_id, _ = await _deployed(service, rule_id)
    key = f"trigger {rule_id} {idempotency_key or uuid4()}"
    made = await create_run(service.looking, deployment_id, idempotency_key=key)
    return Told(rule=rule_id, done="triggered", run_id=str(made.id), url=run_url(str(made.id)))


async def _deployed(service: Service, rule_id: str) -> tuple[str, Rule]:
    async with service.ledger.read() as session:
        found = (await latest_versions(session)).get(rule_id)
    if found is None or found.status == "deleted" or found.deployment_id is None:
        raise UnknownRule(f"no rule {rule_id!r} is deployed")
    return found.deployment_id, from_snapshot(found.snapshot)


async def _note(service: Service) -> None:
    """Let the account know at once; without this it hears of it by Prefect's event, or at its next look."""
    with contextlib.suppress(PrefectError):  # it is done; the account comes to know of it all the same
        await reconcile_rules(service.looking, service.ledger, service.settings)


def _card(version: RuleVersion, last: Iterable[Occurrence], now: datetime) -> RuleCard | None:
    try:
        rule = from_snapshot(version.snapshot)
    except ValidationError:  # another version of this package wrote it
        return None
    active = version.status == "active" and rule.timing is not None
    return RuleCard(
        id=rule.id,
        kind=rule.kind,
        description=rule.description,
        owner=rule.owner,
        tags=rule.tags,
        when=when(rule),
        timezone=timezone_of(rule),
        status=cast("Literal['active', 'paused', 'disabled']", version.status),
        next_fires=next_runs(rule, now, FIRES) if active else [],
        last=[
            Became(
                due=one.due,
                outcome=cast("Outcome", one.outcome),
                reason=one.reason,
                started_at=one.started_at,
                ended_at=one.ended_at,
                run_id=one.run_id,
            )
            for one in last
        ],
        url=deployment_url(version.deployment_id) if version.deployment_id else None,
    )
