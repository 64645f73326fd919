"""From a verified call to its answer: accepted into the inbox; then, if that takes but a moment, what became of it."""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Awaitable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, TypeVar

from ..ledger.db import Ledger
from ..ledger.deliveries import Row, new_id
from ..ledger.occurrences import known_runs
from ..ledger.tables import OPEN
from ..prefect_api.links import run_url
from ..rules.conditions import expression_scope, why_false
from ..tracing import traceparent
from ..webhooks.coalesce import group_of
from .doors import Door
from .service import Service

log = logging.getLogger("proactive.gateway")
T = TypeVar("T")

# On an idle machine a call is answered with its run. Where that takes longer, or others wait, it is answered without.
ANSWER_SECONDS = 2.0
FEW = 16
_LOOK = 0.25  # seconds between two looks for what other gateways have written

Status = Literal["accepted", "skipped", "undeliverable"]


@dataclass(frozen=True)
class Call:
    """One verified call. `given_id` is the caller's own; `payload`, JSON text, is what the run gets."""

    given_id: str | None
    headers: dict[str, str]
    raw: bytes
    body: Any
    payload: str


@dataclass(frozen=True)
class Accepted:
    """What became of a delivery, as far as it is known. `repeated`: it had come before.

    `outcome` and `message` are its run's, where the webhook waits for them and they came in time.
    """

    status: Status
    delivery_id: str
    run_id: str | None
    url: str | None
    reason: str | None
    outcome: str | None
    message: str | None
    repeated: bool


async def deliver(service: Service, door: Door, call: Call) -> Accepted:
    """Accept the delivery, which from then on is never lost, and say what becomes of it if that is soon known.

    Raises InboxClosed where it could not be made safe: then nothing has happened.
    """
    rule, inbox = door.rule, service.inbox
    backed_up = inbox.backlog  # by others: a large delivery is in nobody's memory, and would count as one itself
    receipt = await inbox.accept(row_of(door, call), rule.dedupe or timedelta(0))
    ends = time.monotonic() + (rule.wait.total_seconds() if rule.wait else 0.0)
    # One that waits for others is dispatched later; else, on an idle machine, it is a matter of a moment.
    idle = not receipt.joins and not backed_up and inbox.brisk and inbox.held <= FEW
    within = max(ends - time.monotonic(), ANSWER_SECONDS if idle or not receipt.waits else 0.0)
    settled = await _seen(inbox.settled(receipt.id, within), None) if within > 0 else None
    status: Status = "accepted"
    run_id = reason = None
    if settled is not None:
        run_id = settled.run_id
        reason = settled.reason.partition(":")[0] or None
        if settled.status in ("skipped", "undeliverable"):
            status = settled.status
    outcome = message = None
    if rule.wait and status == "accepted" and run_id is not None:
        look = outcome_of(service.ledger, run_id, ends - time.monotonic())
        outcome, message = await _seen(look, (None, None))
    url = run_url(run_id) if run_id else None
    return Accepted(status, receipt.delivery_id, run_id, url, reason, outcome, message, receipt.repeated)


async def _seen(look: Awaitable[T], unseen: T) -> T:
    """What the look sees, or `unseen`: a caller who is told of a failure comes again, though the delivery is safe."""
    try:
        return await look
    except Exception as error:  # whatever it is: what was committed stays
        log.warning("delivery.unseen: %s", type(error).__name__)
        return unseen


async def outcome_of(ledger: Ledger, run_id: str, within: float) -> tuple[str | None, str | None]:
    """How the run ended and what it said, if it has within so many seconds; else twice None."""
    ends = time.monotonic() + within
    while True:
        async with ledger.read() as session:
            known = (await known_runs(session, [run_id])).get(run_id)
        if known is not None and known[1].outcome not in OPEN and not known[1].running:
            return known[1].outcome, known[1].reason or None
        if (left := ends - time.monotonic()) <= 0:
            return None, None
        await ledger.wait_for_write(min(_LOOK, left))


def row_of(door: Door, call: Call) -> Row:
    """The delivery of a call, as the inbox takes it."""
    rule, now = door.rule, datetime.now(UTC)
    row: Row = {
        "id": (new := new_id(now)),
        "rule_id": rule.id,
        "delivery_id": call.given_id or new,
        "received_at": now,
        "headers": json.dumps(call.headers),
        "payload": call.payload,
        "reason": _refused(door, call, now),
        "traceparent": traceparent(),
    }
    if not row["reason"] and (group := group_of(rule, now, call.body, call.headers)) is not None:
        assert rule.coalesce is not None  # else there are no groups
        row |= {"group_key": group, "due_at": now + min(rule.coalesce.window, rule.coalesce.max_wait)}
    if call.given_id is None and rule.dedupe:
        kind = call.headers.get("content-type", "")
        row["fingerprint"] = hashlib.sha256(kind.encode() + b"\0" + call.raw).hexdigest()
    return row


def _refused(door: Door, call: Call, now: datetime) -> str:
    """Why the rule's `when` is false for this call; "" where it is true."""
    if door.rule.when is None:
        return ""
    scope = expression_scope(door.rule, now, cause="webhook", payload=call.body, headers=call.headers)
    why = why_false(door.rule.when, scope)
    return "" if why is None else f"condition_false: when: {why}"
