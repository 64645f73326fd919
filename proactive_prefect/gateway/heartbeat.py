"""`/api/v1/heartbeat`: how the heartbeats did last, and waking them beside their own time."""

from __future__ import annotations

import json
import uuid
from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Header, HTTPException, Query
from pydantic import BaseModel, ConfigDict, Field

from ..ledger.wakes import REASON_LENGTH, ask
from ..wakes.last import HeartbeatLast, last_heartbeats
from .access import Operator, reader
from .problems import documented
from .service import TheService

router = APIRouter(prefix="/api/v1/heartbeat", tags=["heartbeat"])

_Session = Annotated[str | None, Query(max_length=200, description="Only heartbeats of that session.")]
_Rule = Annotated[str | None, Query(max_length=200, description="Only that heartbeat rule.")]


class WakeRequest(BaseModel):
    """Which heartbeats to wake, when, and why."""

    model_config = ConfigDict(extra="forbid")

    mode: Literal["now", "next"] = Field(description="now: run at once; next: tell the reason to the next run.")
    reason: str = Field(default="asked for over the API", min_length=1, max_length=REASON_LENGTH)
    session_id: str | None = Field(
        default=None, min_length=1, max_length=200, description="The heartbeats of that session, and those of none."
    )
    rule: str | None = Field(default=None, min_length=1, max_length=200, description="That heartbeat rule only.")


class WakeAnswer(BaseModel):
    """What will happen. It is kept, and done also after a restart."""

    status: Literal["accepted"] = "accepted"
    mode: str
    rules: list[str] = Field(description="The heartbeat rules that are woken.")


@router.get("/last", responses=documented(401), dependencies=[Depends(reader)])
async def last(service: TheService, session_id: _Session = None, rule: _Rule = None) -> HeartbeatLast:
    """The latest run of each heartbeat, and the wakes that wait."""
    async with service.ledger.read() as session:
        return await last_heartbeats(session, session_id=session_id, rule_id=rule)


@router.post("/wake", status_code=202, responses=documented(400, 401, 403, 409, 422))
async def wake(
    service: TheService,
    caller: Operator,
    wanted: WakeRequest,
    idempotency_key: Annotated[
        str | None, Header(max_length=200, description="The same again, with the same key, wakes once.")
    ] = None,
) -> WakeAnswer:
    """Wake heartbeats: now, or with a word to their next runs."""
    # With what is asked for in it: the key of another request must not be taken for this one's.
    asked = json.dumps([idempotency_key or str(uuid.uuid4()), wanted.mode, wanted.session_id, wanted.rule])
    async with service.ledger.write() as session:
        woken = await ask(
            session,
            key=f"asked:{asked}",
            mode=wanted.mode,
            reason=wanted.reason,
            by=caller.name,
            session_id=wanted.session_id,
            rule_id=wanted.rule,
        )
    if not woken:
        raise HTTPException(409, "no such heartbeat is active")
    return WakeAnswer(mode=woken[0].mode, rules=[one.rule_id for one in woken])
