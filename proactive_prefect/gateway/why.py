"""`GET /api/v1/proactive/why`: what became of a rule at a time, and why."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

from fastapi import APIRouter, Depends, Query
from pydantic import AwareDatetime

from ..ledger.why import Why, why, with_states
from .access import reader
from .problems import documented
from .service import TheService

router = APIRouter(prefix="/api/v1/proactive", tags=["why"], dependencies=[Depends(reader)])


@router.get("/why", responses=documented(400, 401, 404, 422))
async def read_why(
    service: TheService,
    rule: Annotated[str, Query(min_length=1, max_length=200, description="The rule's id.")],
    at: Annotated[
        AwareDatetime, Query(description="ISO 8601 with an offset. Without seconds it names that whole minute.")
    ],
) -> Why:
    """What became of the rule's occurrence at that time; or why there is none."""
    async with service.ledger.read() as session:
        answer = await why(session, rule, at, datetime.now(UTC))
    return await with_states(service.looking, answer)
