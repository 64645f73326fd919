"""`/api/v1/ops/calendar/…` and `/calendar.ics`: what ran, will run and was missed, and what may be asked of it."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Annotated

from fastapi import APIRouter, Depends, Header, HTTPException, Path, Query, Response
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from ..calendar.actions import Acted, NotMissed, act
from ..calendar.changes import Change, Stale
from ..calendar.confirm import Confirmed, Preview, UnknownChange, confirm, preview
from ..calendar.entries import Asked, CalendarAction, CalendarEvents, Status
from ..calendar.ical import feed
from ..calendar.ids import UnknownEntry
from ..prefect_api.links import run_url
from ..rules.models import Kind
from .access import Operator, reader, subscriber
from .problems import documented
from .service import TheService

router = APIRouter(tags=["calendar"])

EVENTS = "/api/v1/ops/calendar/events"
CHANGES = "/api/v1/ops/calendar/changes"
ChangeId = Annotated[str, Path(min_length=1, max_length=100, description="The id of a preview.")]
EventId = Annotated[str, Path(min_length=1, max_length=2000, description="The event_id of an entry.")]


class Ask(BaseModel):
    """What to do with an entry."""

    model_config = ConfigDict(extra="forbid")

    action: CalendarAction
    target: AwareDatetime | None = Field(default=None, description="Of reschedule: when to run.")


@router.get(EVENTS, response_model=CalendarEvents, responses=documented(400, 401, 422), dependencies=[Depends(reader)])
async def events(
    service: TheService,
    start: Annotated[AwareDatetime, Query(description="Inclusive; ISO 8601 with an offset.")],
    end: Annotated[AwareDatetime, Query(description="Exclusive; at most 400 days later.")],
    rule: Annotated[list[str] | None, Query(max_length=500, description="Only these; may be repeated.")] = None,
    kind: Annotated[list[Kind] | None, Query(description="Only these kinds; may be repeated.")] = None,
    status: Annotated[list[Status] | None, Query(description="Only these; a day's row if it has any of them.")] = None,
) -> Response:
    """The calendar from `start` to `end`. What is very often due is one row a day; what was missed is a queue."""
    began = time.perf_counter()
    asked = Asked(start, end, frozenset(rule or ()), frozenset(kind or ()), frozenset(status or ()))
    answer = await service.calendar.events(asked)
    answer.run_url = run_url("{run_id}")
    body = await asyncio.to_thread(answer.model_dump_json)
    service.samples.projection.record(
        time.perf_counter() - began,
        events=len(answer.events),
        always_running=len(answer.always_running),
        stasis=answer.stasis_total,
    )
    return Response(body, media_type="application/json")


@router.post(f"{EVENTS}/{{event_id}}/action", responses=documented(400, 401, 403, 404, 409, 422, 502, 503))
async def action(
    service: TheService,
    caller: Operator,
    event_id: EventId,
    ask: Ask,
    idempotency_key: Annotated[
        str | None, Header(min_length=1, max_length=200, description="Of run_now: asked twice, run once.")
    ] = None,
) -> Acted:
    """Decide about a missed occurrence; or run, pause or resume the rule of an entry."""
    with _told():
        return await act(
            service.ledger,
            service.looking,
            service.settings,
            event_id,
            ask.action,
            by=caller.name,
            via=caller.via,
            target=ask.target,
            request_id=idempotency_key,
        )


@router.post(CHANGES, responses=documented(400, 401, 403, 404, 409, 422))
async def preview_change(service: TheService, caller: Operator, change: Change) -> Preview:
    """Show what a change would do, and what speaks against it. Nothing is changed until it is confirmed."""
    with _told():
        return await preview(service.ledger, change, by=caller.name)


@router.post(f"{CHANGES}/{{change_id}}/confirm", responses=documented(401, 403, 404, 409, 502, 503))
async def confirm_change(service: TheService, caller: Operator, change_id: ChangeId) -> Confirmed:
    """Do what was previewed, if it still shows what is there. Confirmed again, it is not done again."""
    with _told():
        return await confirm(service.ledger, service.looking, change_id, by=caller.name)


@router.get("/calendar.ics", response_class=Response, responses=documented(401), dependencies=[Depends(subscriber)])
async def ics(service: TheService) -> Response:
    """The active rules as a feed for calendar applications, to be subscribed to with the read token in `?token=`."""
    plans = await service.calendar.plans()
    body = await asyncio.to_thread(feed, plans, datetime.now(UTC))
    return Response(body, media_type="text/calendar; charset=utf-8", headers={"Cache-Control": "private, max-age=300"})


@contextlib.contextmanager
def _told() -> Iterator[None]:
    """What is not there is answered with 404, what has gone on meanwhile with 409."""
    try:
        yield
    except (UnknownEntry, UnknownChange) as error:
        raise HTTPException(404, error.message) from None
    except (NotMissed, Stale) as error:
        raise HTTPException(409, error.message) from None
