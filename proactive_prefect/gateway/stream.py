"""`/api/v1/ops/scheduling`: the event log, to be read in pages, and as it grows (Server-Sent Events)."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import AsyncIterator
from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, HTTPException, Query
from pydantic import BaseModel, Field
from sse_starlette import EventSourceResponse, ServerSentEvent
from sse_starlette.sse import SendTimeoutError
from starlette.types import Receive, Scope, Send

from ..ledger.log import read_events, read_head
from ..ledger.tables import Event
from .access import reader, subscriber
from .problems import documented
from .push import Push, Resync
from .service import TheService

log = logging.getLogger("proactive.gateway")

KEEPALIVE_SECONDS = 15.0
STUCK_SECONDS = 60.0  # without taking anything, after which a reader is hung up on
MAX_READERS = 1_000
MAX_SEQ = 2**63 - 1

router = APIRouter(prefix="/api/v1/ops/scheduling", tags=["events"])


class LoggedEvent(BaseModel):
    """One entry of the log: the envelope of every event."""

    seq: int = Field(description="Rises by one, with no gap.")
    event_type: str = Field(examples=["cron_run_completed"])
    source: str = Field(description="The kind of the rule.", examples=["cron"])
    source_ref: str = Field(description="The rule's id.")
    owner_id: str
    session_id: str | None
    channel: str | None
    occurred_at_utc: datetime
    status: str
    payload: dict[str, Any]


class Position(BaseModel):
    """How far the calendar is, by which a client knows whether it has to read it anew."""

    projection_version: int
    projection_last_event_seq: int


class Told(Position):
    """What the stream says of an event."""

    event: LoggedEvent


class Alive(Position):
    """What the stream says while nothing happens, and (`resync`) when it left something out: read anew."""

    seq: int = Field(description="The last event that this gateway knows of.")


class Replay(Alive):
    """A page of the log."""

    events: list[LoggedEvent]
    oldest_seq: int = Field(description="The first that is kept. Older ones are gone after the retention.")
    resync: bool = Field(description="Events after `since_seq` are gone, or the log is another one: read anew.")


def require_push(service: TheService) -> None:
    """Raises HTTPException 503 where push is switched off."""
    if not service.settings.push_enabled:
        raise HTTPException(503, "push is switched off here (PROACTIVE_PUSH_ENABLED)")


_Since = Annotated[int | None, Query(ge=0, le=MAX_SEQ, description="The last `seq` that is known already.")]


@router.get("/events", dependencies=[Depends(reader), Depends(require_push)], responses=documented(401, 422, 503))
async def events(
    service: TheService,
    since_seq: _Since = 0,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    rule: Annotated[str | None, Query(max_length=200, description="Only events of this rule.")] = None,
) -> Replay:
    """The events after `since_seq`, oldest first."""
    since = since_seq or 0
    async with service.ledger.read() as session:
        head = await read_head(session)
        found = await read_events(session, since_seq=since, limit=limit, rule_id=rule)
    return Replay(
        events=[LoggedEvent.model_validate(event, from_attributes=True) for event in found],
        seq=head.seq,
        oldest_seq=head.oldest,
        resync=since > head.seq or 0 < since < head.oldest - 1,
        **_position(service.push),
    )


class _Stream(EventSourceResponse):
    """A stream whose reader may stop taking without that being an error of ours."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with contextlib.suppress(SendTimeoutError):
            await super().__call__(scope, receive, send)


@router.get(
    "/stream",
    dependencies=[Depends(subscriber), Depends(require_push)],
    response_class=EventSourceResponse,
    responses={
        200: {
            "description": "`message` with each event (`Told`), `keepalive` and `resync` (`Alive`).",
            "content": {"text/event-stream": {"schema": {"type": "string"}}},
        },
        **documented(401, 422, 503),
    },
)
async def stream(
    service: TheService,
    since_seq: _Since = None,
    once: Annotated[bool, Query(description="End after what there is now.")] = False,
    last_event_id: Annotated[str | None, Header(description="What a client that comes back was told last.")] = None,
) -> EventSourceResponse:
    """The events after `since_seq` (or `Last-Event-ID`, which goes before it; else from now on), and all to come."""
    if service.push.readers >= MAX_READERS:
        raise HTTPException(503, f"{MAX_READERS} readers follow already", {"Retry-After": "30"})
    if last_event_id and last_event_id.isdecimal() and int(last_event_id[:19]) <= MAX_SEQ:
        since_seq = int(last_event_id[:19])
    return _Stream(
        _told(service.push, since_seq, once),
        ping=KEEPALIVE_SECONDS,
        ping_message_factory=lambda: _keepalive(service.push, service.push.seq),
        send_timeout=STUCK_SECONDS,
        sep="\n",
    )


async def _told(push: Push, since_seq: int | None, once: bool) -> AsyncIterator[ServerSentEvent]:
    push.counts["push_stream_connects"] += 1
    try:
        async with push.join(since_seq) as reader:
            # The headers of an answer are sent with its first words: who connects learns at once that it is live.
            if not once:
                yield _keepalive(push, reader.seq)
            async with contextlib.aclosing(reader.events(once=once)) as events:
                async for event in events:
                    yield _message(push, event)
            yield _keepalive(push, reader.seq)
    finally:
        push.counts["push_stream_disconnects"] += 1


def _message(push: Push, event: Event | Resync) -> ServerSentEvent:
    if isinstance(event, Resync):
        push.counts["push_stream_resyncs"] += 1
        return ServerSentEvent(_alive(push, event.seq), event="resync", id=str(event.seq), sep="\n")
    push.counts["push_stream_event_payloads"] += 1
    logged = LoggedEvent.model_validate(event, from_attributes=True)
    told = Told(event=logged, **_position(push))
    return ServerSentEvent(told.model_dump_json(), id=str(event.seq), sep="\n")


def _keepalive(push: Push, seq: int) -> ServerSentEvent:
    push.counts["push_stream_keepalives"] += 1
    return ServerSentEvent(_alive(push, seq), event="keepalive", sep="\n")


def _alive(push: Push, seq: int) -> str:
    return Alive(seq=seq, **_position(push)).model_dump_json()


def _position(push: Push) -> dict[str, int]:
    projected = push.projected()
    return {"projection_version": projected.version, "projection_last_event_seq": projected.seq}
