"""`/api/v1/ops/calendar/…`: what ran, runs, will run and was missed, and what may be asked of it."""

from __future__ import annotations

import asyncio
import time
from typing import Annotated

from fastapi import APIRouter, Depends, Query, Response
from pydantic import AwareDatetime

from ..calendar.entries import Asked, CalendarEvents, Status
from ..prefect_api.links import run_url
from ..rules.models import Kind
from .access import reader
from .problems import documented
from .service import TheService

router = APIRouter(prefix="/api/v1/ops/calendar", tags=["calendar"], dependencies=[Depends(reader)])


@router.get("/events", response_model=CalendarEvents, responses=documented(400, 401, 422))
async def events(
    service: TheService,
    start: Annotated[AwareDatetime, Query(description="Inclusive; ISO 8601 with an offset.")],
    end: Annotated[AwareDatetime, Query(description="Exclusive; at most 400 days later.")],
    rule: Annotated[list[str] | None, Query(description="Only these rules; may be repeated.")] = None,
    kind: Annotated[list[Kind] | None, Query(description="Only these kinds; may be repeated.")] = None,
    status: Annotated[list[Status] | None, Query(description="Only these; a day's row if it has any of them.")] = None,
) -> Response:
    """The calendar from `start` to `end`. What is very often due is one row a day; what was missed is a queue."""
    asked = Asked(start, end, frozenset(rule or ()), frozenset(kind or ()), frozenset(status or ()))
    began = time.perf_counter()
    answer = await service.calendar.events(asked)
    answer.run_url = _template()
    body = await asyncio.to_thread(answer.model_dump_json)
    service.samples.projection.record(
        time.perf_counter() - began,
        events=len(answer.events),
        always_running=len(answer.always_running),
        stasis=answer.stasis_total,
    )
    return Response(body, media_type="application/json")


def _template() -> str | None:
    anyone = "00000000-0000-0000-0000-000000000000"
    url = run_url(anyone)
    return url.replace(anyone, "{run_id}") if url else None
