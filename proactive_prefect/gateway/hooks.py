"""`POST /hooks/{id}`: one call from outside, one delivery in the inbox, one run.

Who calls is verified on the raw bytes, before anything is parsed. A caller who shows the webhook's secret in a header
(schemes header and bearer) is known before the body is read. For everybody else the body comes first, whatever the id
and the scheme, so that nobody learns from an answer, or from when it comes, which webhooks there are.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from fastapi import APIRouter, HTTPException, Path, Request, Response, Security
from fastapi.responses import JSONResponse
from fastapi.security import APIKeyHeader, HTTPBearer
from pydantic import BaseModel, Field
from starlette.types import ASGIApp, Receive, Scope, Send

from ..errors import ProactiveError
from ..tracing import SpanKind, span
from ..webhooks.claims import proof_headers
from ..webhooks.inbox import InboxClosed
from ..webhooks.senders import DELIVERY_ID, delivery_id, greeting
from .body import parse_body, read_body, shape_payload
from .delivery import Call, Status, deliver
from .doors import Door
from .origin import origin
from .problems import RETRY_AFTER, as_problem, documented, problem
from .rates import bucket
from .rehearsal import Rehearsal, operators_door, rehearse
from .service import Service, TheService

router = APIRouter(tags=["webhooks"])

# Calls that are being accepted at once, each with its body in memory; more are asked to come again.
MAX_WAITING = 2000
# What the bodies of all calls that have proved nothing yet may take together; at least two of the largest fit.
MAX_UNPROVEN = 128 * 1024 * 1024
# Not for templates, expressions or anybody: they let their owner in somewhere.
_PRIVATE = {"x-webhook-secret", "authorization", "proxy-authorization", "cookie"}

_documents = [
    Security(APIKeyHeader(name="X-Webhook-Secret", auto_error=False, scheme_name="webhook header")),
    Security(HTTPBearer(auto_error=False, scheme_name="webhook bearer")),
]


# Made once: to make it took a twelfth of a refusal's time.
_REFUSED = problem(401, "no such webhook, or not its secret", {"WWW-Authenticate": "Bearer"})


class _NotLetIn(Exception):
    """The call proves nothing."""


class Answer(BaseModel):
    """What became of the call."""

    status: Status = Field(
        description="accepted: safe, and to be run. skipped: recorded in Prefect, but not to be run. "
        "undeliverable: its webhook was deleted before it could have a run."
    )
    delivery_id: str = Field(description="The sender's own id, else the Idempotency-Key of the call, else a new id.")
    flow_run_id: str | None = Field(
        default=None, description="Its run in Prefect; left out where that is made later, as in a burst."
    )
    url: str | None = Field(description="The run in Prefect's UI.")
    reason: str | None = Field(default=None, description="Why it was skipped, such as overlap or condition_false.")
    outcome: str | None = Field(
        default=None, description="How its run ended, where the webhook has a `wait` and it ended in time."
    )
    message: str | None = Field(default=None, description="What its run said at the end.")


class Greeting(BaseModel):
    """The answer to GitHub's ping and to Slack's challenge, which make no run."""

    status: Literal["pong"] | None = None
    challenge: str | None = Field(default=None, description="What Slack sent.")


@router.post(
    "/hooks/{rule_id}",
    status_code=202,
    response_model=Answer,
    dependencies=_documents,
    responses={
        200: {
            "model": Answer | Greeting | Rehearsal,
            "description": "This delivery id came before: what became of it. Or its outcome, or a sender's greeting; "
            "or, for a dry run, what would happen.",
        },
        **documented(400, 401, 404, 408, 413, 415, 422, 429, 503),
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
                "description": "The delivery's id, where the sender has none of its own. "
                "The same id again gives the same run, and 200.",
            },
            {
                "name": "dry_run",
                "in": "query",
                "allowEmptyValue": True,
                "schema": {"type": "string"},
                "description": "With the operator's token as Authorization: tell what would happen, and do nothing.",
            },
        ],
    },
)
async def receive(
    rule_id: Annotated[str, Path(description="The webhook rule's id.")], request: Request, service: TheService
) -> Response:
    """Take one delivery: it is safe when this answers 202, and will be one run, or one recorded skip."""
    return await answer_call(rule_id, request, service)


class Doorway:
    """Answers `POST /hooks/{id}` before FastAPI's routing, which would cost a call more than all the rest of it."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        rule_id = scope["path"].removeprefix("/hooks/") if scope["type"] == "http" else ""
        if not rule_id or "/" in rule_id or scope["method"] != "POST":
            await self._app(scope, receive, send)
            return
        try:
            answer = await answer_call(rule_id, Request(scope, receive), scope["app"].state.service)
        except (HTTPException, ProactiveError) as error:
            answer = as_problem(error)
        await answer(scope, receive, send)


async def answer_call(rule_id: str, request: Request, service: Service) -> Response:
    """The answer to one call. Raises HTTPException for one that is refused; ProactiveError in a dry run."""
    if request.scope["query_string"] and "dry_run" in request.query_params:
        return _told(await _dry_run(rule_id, request, service))
    try:
        door, raw = await _verified(rule_id, request, service)
    except _NotLetIn:
        return _REFUSED
    count = service.counters[door.rule.id]
    _limit(request, service, door)
    if service.waiting >= MAX_WAITING:
        raise HTTPException(503, "too many calls at once", {"Retry-After": str(RETRY_AFTER)})
    service.waiting += 1
    try:
        made = await _read(request, service, door, raw)
        if isinstance(made, dict):
            greeted = _told(made)
            count["greeted"] += 1
            return greeted
        rule = door.rule
        about = {"proactive.rule.id": rule.id, "proactive.rule.kind": rule.kind, "proactive.owner": rule.owner}
        # Only a caller who is known may tell which trace the call belongs to.
        caller = request.headers.get("traceparent")
        with span("webhook", kind=SpanKind.SERVER, parent=caller, attributes=about) as current:
            answer = await deliver(service, door, made)
            current.set_attribute("proactive.delivery.id", answer.delivery_id)
            current.set_attribute("proactive.run.id", answer.run_id or "")
    except InboxClosed:
        count["failed"] += 1
        raise HTTPException(503, "the inbox is closed", {"Retry-After": str(RETRY_AFTER)}) from None
    except Exception:
        count["failed"] += 1
        raise
    finally:
        service.waiting -= 1
    count["repeated" if answer.repeated else answer.status] += 1
    said = {
        "status": answer.status,
        "delivery_id": answer.delivery_id,
        "flow_run_id": answer.run_id,
        "url": answer.url,
        "reason": answer.reason,
        "outcome": answer.outcome,
        "message": answer.message,
    }
    known = {name: value for name, value in said.items() if value is not None}
    return JSONResponse(known, 200 if answer.repeated or answer.outcome else 202)


def _told(said: dict[str, Any]) -> JSONResponse:
    """An answer with what the caller sent in it. Raises HTTPException where it holds half a character."""
    try:
        return JSONResponse(said)
    except UnicodeEncodeError:
        raise HTTPException(422, "what was sent holds half a character, which no answer can show") from None


async def _dry_run(rule_id: str, request: Request, service: Service) -> dict[str, Any]:
    door = operators_door(service, rule_id, request)
    raw = await read_body(request, _max_body(service, door))
    told = await rehearse(service, door, request, await _read(request, service, door, raw), raw)
    return told.model_dump(mode="json")


async def _verified(rule_id: str, request: Request, service: Service) -> tuple[Door, bytes | None]:
    """The webhook that this call may go through, and the call's body where that had to be read to know.

    Raises _NotLetIn for an unknown id as for everything that is wrong with a call; HTTPException: 413, 408, 503, and
    429 for an address whose calls were refused too often.
    """
    doors, headers, now = service.doors, request.headers.raw, datetime.now(UTC)
    if not doors.known:  # it has just started: nobody is to be told that their secret is wrong
        raise HTTPException(503, "the webhooks are not known yet", {"Retry-After": str(RETRY_AFTER)})
    address = origin(request, service.settings)
    if (known := doors.knows(rule_id, headers, now, address)) is not None:
        return known, None
    caller, refusals = bucket(address), service.settings.refusals
    if refusals and (wait := service.rates.look(refusals, "refused", caller)):
        raise _too_often(wait)
    async with _unproven(request, service, caller) as raw:
        # Again: of those that came together, as many may have been refused meanwhile.
        if refusals and (wait := service.rates.look(refusals, "refused", caller)):
            raise _too_often(wait)
        door, verdict = await doors.verify(rule_id, raw, headers, now, address)
    if door is None or verdict != "verified":
        service.refused += 1
        if refusals:
            service.rates.take(refusals, "refused", caller)
        if door is not None:
            service.counters[door.rule.id][verdict] += 1
        raise _NotLetIn
    if len(raw) > (limit := _max_body(service, door)):
        raise HTTPException(413, f"the body is larger than the {limit} bytes that this webhook takes")
    return door, raw


def _too_often(wait: int) -> HTTPException:
    return HTTPException(429, "too many calls were refused", {"Retry-After": str(wait), "Connection": "close"})


@contextlib.asynccontextmanager
async def _unproven(request: Request, service: Service, caller: str) -> AsyncIterator[bytes]:
    """The body of a call that may be anybody's, which counts as held until the block, which verifies it, ends."""
    largest, held = service.doors.largest(service.settings.max_body), 0

    def hold(size: int) -> None:
        nonlocal held
        held += size
        service.unproven += size
        service.unproven_of[caller] += size
        most = max(MAX_UNPROVEN, 2 * largest)
        if service.unproven > most or service.unproven_of[caller] > most // 2:
            busy = {"Retry-After": str(RETRY_AFTER), "Connection": "close"}
            raise HTTPException(503, "too many calls at once", busy)

    try:
        yield await read_body(request, largest, hold)
    finally:
        service.unproven -= held
        service.unproven_of[caller] -= held
        if not service.unproven_of[caller]:
            del service.unproven_of[caller]


async def _read(request: Request, service: Service, door: Door, raw: bytes | None) -> Call | dict[str, str]:
    """What a verified call says; or the answer to a greeting, which is none."""
    rule = door.rule
    said = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in request.headers.raw]
    keys = [value for name, value in said if name == "idempotency-key"]
    if len(keys) > 1 or (keys and not DELIVERY_ID.fullmatch(keys[0])):
        raise HTTPException(400, "Idempotency-Key: allowed: once, 1 to 200 visible ASCII characters")
    if raw is None:
        raw = await read_body(request, _max_body(service, door))
    private = _PRIVATE | proof_headers(rule.scheme, rule.hmac)
    headers = {name: value for name, value in said if name not in private}
    encoding = ", ".join(value for name, value in said if name == "content-encoding")
    body = parse_body(raw, headers.get("content-type", ""), encoding, _max_body(service, door))
    if (greeted := greeting(rule.scheme, headers, body)) is not None:
        return greeted
    payload = shape_payload(body, headers, rule.template)
    known_as = delivery_id(rule.scheme, headers, body) or (keys[0] if keys else None)
    return Call(known_as, headers, raw, body, payload)


def _max_body(service: Service, door: Door) -> int:
    return door.rule.max_body or service.settings.max_body


def _limit(request: Request, service: Service, door: Door) -> None:
    rule = door.rule
    if rule.rate_limit is None and rule.caller_rate_limit is None:
        return
    caller = bucket(origin(request, service.settings))
    # The caller's own first: what it has too much is not taken from the others.
    for rate, *name in ((rule.caller_rate_limit, "caller", rule.id, caller), (rule.rate_limit, "webhook", rule.id)):
        if rate and (wait := service.rates.take(rate, *name)):
            service.counters[rule.id]["limited"] += 1
            raise HTTPException(429, f"more than {rate}", {"Retry-After": str(wait), "Connection": "close"})
