"""What an operator sees of the inbox, and may do with it: look, replay, erase."""

from __future__ import annotations

import json
import re
from datetime import datetime
from typing import Any

from pydantic import BaseModel, Field

from ..errors import InputError
from ..ledger.columns import clean_json
from ..ledger.db import Ledger
from ..ledger.deliveries import Row, Status, insert_new, new_id, payload_of, what_became
from ..ledger.delivery_log import Glance, erase, find_delivery
from ..ledger.tables import Delivery
from ..prefect_api.links import run_url

# Headers that prove who calls are not kept at all; these may still hold what is nobody's business.
_SENSITIVE = re.compile(r"secret|token|passw|auth|credential|cookie|api[_-]?key|signature|session", re.IGNORECASE)
REDACTED = "(redacted)"


class DeliveryCard(BaseModel):
    """One delivery, and what became of it."""

    id: str = Field(description="Ours: by it a delivery is shown, replayed and erased.")
    webhook: str = Field(description="The rule's id.")
    delivery_id: str = Field(description="The sender's own, else the Idempotency-Key, else one that was made up.")
    received_at: datetime
    status: Status = Field(
        description="waiting; dispatched: it has its run; skipped: recorded as such; joined: part of another's run; "
        "undeliverable: it can have no run, and `reason` says why."
    )
    reason: str
    run_id: str | None
    run_url: str | None = Field(description="The run in Prefect's UI.")
    joined_to: str | None = Field(description="The delivery that stands for this one, where several were one run.")
    attempts: int = Field(description="How often a gateway took it up again.")
    settled_at: datetime | None
    replay_of: str | None
    erased_at: datetime | None = Field(description="When headers and payload were taken away.")
    payload_bytes: int


class DeliveryDetail(DeliveryCard):
    """One delivery, with what its caller sent: untrusted."""

    headers: dict[str, str] = Field(description="Without those that prove who called; others by name redacted.")
    payload: Any = Field(description="What the run gets.")


class Found(BaseModel):
    """How many deliveries something was done to."""

    erased: int


def card(delivery: Delivery | Glance) -> DeliveryCard:
    """The delivery at a glance."""
    return DeliveryCard.model_validate(_card(delivery, delivery.run_id))


async def detail(ledger: Ledger, name: str) -> DeliveryDetail:
    """All of a delivery, by its id or its sender's. Raises InputError where there is none."""
    async with ledger.read() as session:
        delivery = await _find(session, name)
        became = await what_became(session, delivery.id)  # of one that joined others, their run
    headers = {
        name: REDACTED if _SENSITIVE.search(name) else value for name, value in json.loads(delivery.headers).items()
    }
    more = {"headers": headers, "payload": clean_json(json.loads(delivery.payload))}  # as far as it can be shown
    return DeliveryDetail.model_validate(_card(delivery, became.run_id if became else None) | more)


async def replay(ledger: Ledger, name: str) -> DeliveryCard:
    """Accept a delivery once more, as a new one that is dispatched at once; `when` and `coalesce` are not asked again.

    One that stands for others is replayed with all that its run got. Raises InputError where there is none, or nothing
    is left of it.
    """
    async with ledger.write() as session:
        first = await _find(session, name)
        if first.erased_at is not None:
            raise InputError(f"delivery {first.id} was erased: there is nothing left to replay")
        now = await ledger.now(session)
        again: Row = {
            "id": (one := new_id(now)),
            "rule_id": first.rule_id,
            "delivery_id": f"replay-{one}",
            "received_at": now,
            "headers": first.headers,
            "payload": await payload_of(session, first),
            "due_at": now,
            "replay_of": first.id,
        }
        await insert_new(session, [again], {})
        made = await session.get_one(Delivery, one)
    return card(made)


async def take_away(ledger: Ledger, name: str) -> Found:
    """Erase what the caller of one delivery sent. Raises InputError where there is none, or it still waits."""
    async with ledger.write() as session:
        found = await _find(session, name)
        erased = await erase(session, await ledger.now(session), name=found.id)
        if not erased and found.erased_at is None:
            raise InputError(f"delivery {found.id} still waits for its run, which needs what it brought")
        return Found(erased=erased)


async def take_all_away(ledger: Ledger, rule_id: str | None, before: datetime | None) -> Found:
    """Erase what callers sent: of one webhook's deliveries, or of those before an instant, or both."""
    async with ledger.write() as session:
        return Found(erased=await erase(session, await ledger.now(session), rule_id=rule_id, before=before))


async def _find(session: Any, name: str) -> Delivery:
    found = await find_delivery(session, name)
    if found is None:
        raise InputError(f"no delivery {name!r}", hint="`proactive deliveries` lists them.")
    return found


def _card(delivery: Delivery | Glance, run_id: str | None) -> dict[str, Any]:
    return {
        "id": delivery.id,
        "webhook": delivery.rule_id,
        "delivery_id": delivery.delivery_id,
        "received_at": delivery.received_at,
        "status": delivery.status,
        "reason": delivery.reason,
        "run_id": run_id,
        "run_url": run_url(run_id) if run_id else None,
        "joined_to": delivery.joined_id if delivery.joined_id != delivery.id else None,
        "attempts": delivery.attempts,
        "settled_at": delivery.settled_at,
        "replay_of": delivery.replay_of,
        "erased_at": delivery.erased_at,
        "payload_bytes": delivery.payload_size if isinstance(delivery, Glance) else len(delivery.payload),
    }
