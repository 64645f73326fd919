"""`POST /hooks/{id}`: one call from outside, one run.

The secret comes in the header that the rule's scheme names: `X-Webhook-Secret` (scheme header, the default) or
`Authorization: Bearer` (scheme bearer); the other one is not looked at. It is verified before the body is read.
"""

from __future__ import annotations

import math
import re
import time
from typing import Annotated, Literal

from fastapi import APIRouter, HTTPException, Path, Request, Response, Security
from fastapi.security import APIKeyHeader, HTTPBearer
from limits import (
    RateLimitItem,
    RateLimitItemPerDay,
    RateLimitItemPerHour,
    RateLimitItemPerMinute,
    RateLimitItemPerSecond,
)
from pydantic import BaseModel, Field

from ..prefect_api import Refused
from .body import parse_body, read_body, shape_payload
from .delivery import Delivery, deliver, new_delivery_id
from .doors import Door
from .problems import RETRY_AFTER, documented
from .service import Service, TheService

router = APIRouter(tags=["webhooks"])

# Calls that wait for Prefect at once, each with its body in memory; more are asked to come again.
MAX_WAITING = 500

_SECRET_HEADER = "x-webhook-secret"  # noqa: S105 - a header's name
# Not for templates, expressions or anybody: they let their owner in somewhere.
_PRIVATE = {_SECRET_HEADER, "authorization", "proxy-authorization", "cookie"}
_DELIVERY_ID = re.compile(r"[\x21-\x7e]{1,200}")
_RATES: dict[str, type[RateLimitItem]] = {
    "s": RateLimitItemPerSecond,
    "m": RateLimitItemPerMinute,
    "h": RateLimitItemPerHour,
    "d": RateLimitItemPerDay,
}

_documents = [
    Security(APIKeyHeader(name="X-Webhook-Secret", auto_error=False, scheme_name="webhook header")),
    Security(HTTPBearer(auto_error=False, scheme_name="webhook bearer")),
]


class Answer(BaseModel):
    """What became of the call."""

    status: Literal["accepted", "skipped"] = Field(description="skipped: recorded in Prefect, but not to be run.")
    delivery_id: str = Field(description="The Idempotency-Key of the call, or a new id.")
    flow_run_id: str
    url: str | None = Field(description="The run in Prefect's UI.")
    reason: str | None = Field(default=None, description="Why it was skipped, such as overlap or condition_false.")


@router.post(
    "/hooks/{rule_id}",
    status_code=202,
    response_model_exclude_none=True,
    dependencies=_documents,
    responses={
        200: {"model": Answer, "description": "This delivery id came before: what was answered then."},
        **documented(400, 401, 408, 413, 415, 422, 429, 503),
    },
    openapi_extra={
        "requestBody": {
            "content": {
                "application/json": {"schema": {}},
                "text/plain": {"schema": {"type": "string"}},
                "application/x-www-form-urlencoded": {"schema": {"type": "object"}},
            }
        },
        "parameters": [
            {
                "name": "Idempotency-Key",
                "in": "header",
                "schema": {"type": "string", "maxLength": 200},
                "description": "The delivery's id. The same id again gives the same run, and 200.",
            }
        ],
    },
)
async def receive(
    rule_id: Annotated[str, Path(description="The webhook rule's id.")],
    request: Request,
    response: Response,
    service: TheService,
) -> Answer:
    """Take one delivery: its run exists in Prefect when this answers 202."""
    door = service.doors.admit(rule_id, request.headers.getlist(_SECRET_HEADER), _bearers(request))
    if door is None:
        service.refused += 1
        raise HTTPException(401, "no such webhook, or not its secret", {"WWW-Authenticate": "Bearer"})
    count = service.counters[door.rule.id]
    _limit(service, door)
    if service.waiting >= MAX_WAITING:
        raise HTTPException(503, "too many calls wait for Prefect", {"Retry-After": str(RETRY_AFTER)})
    service.waiting += 1
    try:
        delivery = await _read(request, service, door)
        answer = await deliver(service, door, delivery)
    except Refused as refused:
        count["failed"] += 1
        if refused.status != 404:
            raise
        # The deployment was deleted a moment ago.
        raise HTTPException(503, "the webhook is being changed", {"Retry-After": str(RETRY_AFTER)}) from None
    except Exception:
        count["failed"] += 1
        raise
    finally:
        service.waiting -= 1
    count["repeated" if answer.repeated else answer.status] += 1
    response.status_code = 200 if answer.repeated else 202
    return Answer(
        status=answer.status,
        delivery_id=delivery.id,
        flow_run_id=answer.run_id,
        url=answer.url,
        reason=answer.reason,
    )


async def _read(request: Request, service: Service, door: Door) -> Delivery:
    keys = request.headers.getlist("idempotency-key")
    if len(keys) > 1 or (keys and not _DELIVERY_ID.fullmatch(keys[0])):
        raise HTTPException(400, "Idempotency-Key: allowed: once, 1 to 200 visible ASCII characters")
    raw = await read_body(request, door.rule.max_body or service.settings.max_body)
    body = parse_body(
        raw, request.headers.get("content-type", ""), ", ".join(request.headers.getlist("content-encoding"))
    )
    headers = {name: value for name, value in request.headers.items() if name not in _PRIVATE}
    payload = shape_payload(body, headers, door.rule.template)
    return Delivery(keys[0] if keys else new_delivery_id(), headers, body, payload)


def _bearers(request: Request) -> list[str]:
    given = [value.partition(" ") for value in request.headers.getlist("authorization")]
    return [token.strip() for scheme, _, token in given if scheme.lower() == "bearer"]


def _limit(service: Service, door: Door) -> None:
    if door.rule.rate_limit is None:
        return
    amount, _, unit = door.rule.rate_limit.partition("/")
    item = _RATES[unit[0]](int(amount))
    if not service.limiter.hit(item, door.rule.id):
        wait = max(1, math.ceil(service.limiter.get_window_stats(item, door.rule.id).reset_time - time.time()))
        raise HTTPException(429, f"more than {door.rule.rate_limit}", {"Retry-After": str(wait)})
