"""`POST /hooks/{id}?dry_run`: what a call would do, for its operator. Nothing is accepted, and nobody is told."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any, Literal

from fastapi import HTTPException, Request
from pydantic import BaseModel, Field
from sqlalchemy import select
from sqlmodel import col

from ..firing.atdoor import judge_calls
from ..firing.gate import Hold, Skip
from ..ledger.tables import Delivery
from .access import is_operator
from .delivery import Call, row_of
from .doors import Door
from .origin import origin
from .service import Service


class Rehearsal(BaseModel):
    """What would happen."""

    would: Literal["run", "skip", "hold", "join", "repeat", "greet"] = Field(
        description="join: wait for others, and be one run with them. repeat: it has come before. "
        "greet: be answered, as a sender's ping. hold: have a run that waits for somebody to resume it."
    )
    reason: str | None = Field(default=None, description='"code: text", of a skip.')
    verdict: str = Field(
        description="Whether the call as it came would get in without the operator's token: verified, or why not."
    )
    delivery_id: str | None = Field(default=None, description="Its own id; null where one would be made up.")
    group: str | None = Field(default=None, description="Which deliveries it would be one run with.")
    payload: Any = Field(default=None, description="What the run would get.")
    payload_bytes: int = 0


def operators_door(service: Service, rule_id: str, request: Request) -> Door:
    """The webhook of that id, for its operator. Raises HTTPException: 401 for anybody else, 404."""
    if not is_operator(service.settings, request):
        raise HTTPException(401, "no such webhook, or not its secret", {"WWW-Authenticate": "Bearer"})
    door = service.doors.get(rule_id)
    if door is None:
        raise HTTPException(404, f"no webhook {rule_id!r} is deployed")
    return door


async def rehearse(
    service: Service, door: Door, request: Request, call: Call | dict[str, str], raw: bytes
) -> Rehearsal:
    """What the call would do now. Raises PrefectError where Prefect has to be asked, and does not answer."""
    rule = door.rule
    address = origin(request, service.settings)
    verdict = (await service.doors.verify(rule.id, raw, request.headers.raw, datetime.now(UTC), address))[1]
    if isinstance(call, dict):
        return Rehearsal(would="greet", verdict=verdict, payload=call)
    row = row_of(door, call)
    told = Rehearsal(
        would="run",
        verdict=verdict,
        delivery_id=call.given_id,
        group=row.get("group_key"),
        payload=json.loads(call.payload),
        payload_bytes=len(call.payload),
    )
    if call.given_id is not None and await _came_before(service, rule.id, call.given_id):
        return told.model_copy(update={"would": "repeat"})
    if door.paused:
        return told.model_copy(update={"would": "skip", "reason": "disabled: the rule is paused in Prefect"})
    if row["reason"]:
        return told.model_copy(update={"would": "skip", "reason": row["reason"]})
    [decision] = await judge_calls(service.looking, rule, door.deployment_id, [call.payload])
    match decision:
        case Skip() as skip:
            return told.model_copy(update={"would": "skip", "reason": str(skip)})
        case Hold() as hold:
            return told.model_copy(update={"would": "hold", "reason": str(hold)})
        case _:
            return told.model_copy(update={"would": "join"}) if told.group else told


async def _came_before(service: Service, rule_id: str, delivery_id: str) -> bool:
    query = select(col(Delivery.id)).where(col(Delivery.rule_id) == rule_id, col(Delivery.delivery_id) == delivery_id)
    async with service.ledger.read() as session:
        return (await session.scalars(query)).first() is not None
