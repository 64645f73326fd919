"""The stasis queue over HTTP: what was missed and waits, and the decision about it, one by one or in bulk."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Depends, Query
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from ..errors import InputError
from ..ledger.tables import ResolutionAction
from ..missed.queue import LIMIT, MissedQueue, read_queue
from ..missed.resolve import Resolved, find_missed, occurrence_of_run, resolve_missed
from .access import Operator, reader
from .problems import documented
from .service import TheService

router = APIRouter(prefix="/api/v1/proactive/missed", tags=["missed"])

_RULE = Query(min_length=1, max_length=200, description="Only of this rule.")
_BEFORE = Query(description="Only what was due before then; ISO 8601 with an offset.")


OccurrenceId = Annotated[int, Field(ge=1, lt=2**53)]


class Decision(BaseModel):
    """What to do with which missed occurrences: those of `ids` or `run_ids`, or all that match."""

    model_config = ConfigDict(extra="forbid")

    action: ResolutionAction
    ids: list[OccurrenceId] | None = Field(default=None, max_length=10_000, description="Occurrences, by their id.")
    run_ids: list[UUID] | None = Field(default=None, max_length=200, description="Occurrences, by their flow run.")
    rule: str | None = Field(default=None, max_length=200, description="All of this rule.")
    before: AwareDatetime | None = Field(default=None, description="All that were due before then.")
    all: bool = Field(default=False, description="All; together with no other choice.")
    target: AwareDatetime | None = Field(default=None, description="Of reschedule: to when.")

    def chosen(self) -> None:
        """Raise InputError unless it says in one way what is meant."""
        by_name = self.ids is not None or self.run_ids is not None
        by_match = self.rule is not None or self.before is not None
        if by_name + by_match + self.all != 1:
            raise InputError("which ones? allowed: one of ids (and run_ids), rule (and before), or all = true")


class Decided(BaseModel):
    """What stands about each occurrence that was meant."""

    resolved: int = Field(description="How many this request decided.")
    results: list[Resolved]


@router.get("", responses=documented(401, 422), dependencies=[Depends(reader)])
async def list_missed(
    service: TheService,
    rule: Annotated[str | None, _RULE] = None,
    before: Annotated[AwareDatetime | None, _BEFORE] = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = LIMIT,
    offset: Annotated[int, Query(ge=0, le=2**40)] = 0,
) -> MissedQueue:
    """The missed runs that wait, oldest first, with what becomes of each; and what was left out."""
    chosen: dict[str, Any] = {"rule_ids": [rule] if rule else None, "before": before}
    async with service.ledger.read() as session:
        return await read_queue(session, service.settings, datetime.now(UTC), limit=limit, offset=offset, **chosen)


@router.post("/resolve", responses=documented(400, 401, 403, 422))
async def resolve(service: TheService, caller: Operator, decision: Decision) -> Decided:
    """Decide: approve_backfill_run, reschedule (with `target`), or delete_missed. The first decision stands."""
    decision.chosen()
    ids = list(decision.ids or ())
    for run_id in decision.run_ids or ():
        ids.append(await occurrence_of_run(service.ledger, service.looking, service.settings, str(run_id)))
    if decision.ids is None and decision.run_ids is None:
        async with service.ledger.read() as session:
            rules = [decision.rule] if decision.rule is not None else None
            ids = [one.id for one in await find_missed(session, rule_ids=rules, before=decision.before) if one.id]
    results = await resolve_missed(
        service.ledger,
        service.looking,
        service.settings,
        ids,
        decision.action,
        by=caller.name,
        via=caller.via,
        target=decision.target,
    )
    return Decided(resolved=sum(one.status == "resolved" for one in results), results=results)
