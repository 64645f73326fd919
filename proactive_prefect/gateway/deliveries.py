"""`/api/v1/proactive/deliveries`: the inbox, for operators."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, HTTPException, Path, Query
from pydantic import BaseModel, Field

from ..errors import InputError
from ..ledger.deliveries import Status
from ..ledger.delivery_log import last_deliveries
from ..webhooks.desk import DeliveryCard, DeliveryDetail, Found, card, detail, replay, take_away
from .access import operator
from .problems import documented
from .service import TheService

router = APIRouter(prefix="/api/v1/proactive/deliveries", tags=["deliveries"], dependencies=[Depends(operator)])

_Id = Annotated[str, Path(min_length=1, max_length=200, description="Its `id`, or the sender's own.")]


class Deliveries(BaseModel):
    """A page of deliveries, the latest first."""

    deliveries: list[DeliveryCard]
    next: str | None = Field(description="`before` of the next page; null on the last one.")


@router.get("", responses=documented(401, 403, 422))
async def listing(
    service: TheService,
    webhook: Annotated[str | None, Query(max_length=200, description="Of this rule only.")] = None,
    status: Annotated[Status | None, Query(description="Of this status only.")] = None,
    before: Annotated[str | None, Query(max_length=200, description="Older than the delivery of this `id`.")] = None,
    limit: Annotated[int, Query(ge=1, le=500)] = 50,
) -> Deliveries:
    """The deliveries that were accepted, without what their callers sent."""
    async with service.ledger.read() as session:
        found = await last_deliveries(session, limit, rule_id=webhook, status=status, before_id=before)
    return Deliveries(deliveries=[card(one) for one in found], next=found[-1].id if len(found) == limit else None)


@router.get("/{delivery}", responses=documented(401, 403, 404))
async def show(service: TheService, delivery: _Id) -> DeliveryDetail:
    """One delivery, with its headers, redacted, and its payload: what a stranger wrote."""
    try:
        return await detail(service.ledger, delivery)
    except InputError as error:
        raise HTTPException(404, error.message) from None


@router.post("/{delivery}/replay", status_code=202, responses=documented(400, 401, 403, 404))
async def again(service: TheService, delivery: _Id) -> DeliveryCard:
    """Accept it once more, as a new delivery that is dispatched at once."""
    await show(service, delivery)
    made = await replay(service.ledger, delivery)
    service.inbox.backlog = True
    service.inbox.wake.set()
    return made


@router.delete("/{delivery}", responses=documented(400, 401, 403, 404))
async def erase(service: TheService, delivery: _Id) -> Found:
    """Take away its headers and its payload; what became of it stays."""
    await show(service, delivery)
    return await take_away(service.ledger, delivery)
