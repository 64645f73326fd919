"""From a verified call to its run: gate first, then one run in Prefect, whatever is called twice."""

from __future__ import annotations

import asyncio
import logging
import secrets
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from ..errors import PrefectUnreachable
from ..firing.atdoor import judge_call
from ..firing.gate import Hold, Run, Skip
from ..firing.outcome import skipped
from ..prefect_api.links import run_url
from ..prefect_api.runs import create_run, run_states
from ..rules.conditions import expression_scope, why_false
from .doors import Door
from .service import Service

log = logging.getLogger("proactive.gateway")

DELIVERY_SECONDS = 900.0  # for one delivery, however many wait before it


@dataclass(frozen=True)
class Delivery:
    """One verified call. `id` is the caller's own, or a new one; `payload` is JSON text."""

    id: str
    headers: dict[str, str]
    body: Any
    payload: str


@dataclass(frozen=True)
class Accepted:
    """What became of a delivery. `repeated`: it had come before, and this is what became of it then."""

    status: Literal["accepted", "skipped"]
    run_id: str
    url: str | None
    reason: str | None
    repeated: bool


async def deliver(service: Service, door: Door, delivery: Delivery) -> Accepted:
    """Let the gate decide, and create the run: to start now, or ended already as Skipped, with the reason.

    The run's idempotency key is the delivery's, so however often and to however many gateways a delivery comes, there
    is one run. Raises PrefectUnreachable when Prefect takes too long, Refused when it will not have the run.
    """
    # Prefect answers the same for a run that is new and for one that was there; its name tells.
    name = f"{door.rule.id}-{secrets.token_hex(4)}"
    try:
        async with asyncio.timeout(DELIVERY_SECONDS):
            skip = await _gate(service, door, delivery)
            run = await create_run(
                service.delivering,
                door.deployment_id,
                idempotency_key=f"webhook {door.rule.id} {delivery.id}",
                payload=delivery.payload,
                name=name,
                state=skipped(skip) if skip else None,
                cause="webhook",
            )
            run_id = str(run.id)
            repeated = run.name != name
            if repeated:
                # What was decided the first time stands: the state that the run was created in says it.
                first = (await run_states(service.delivering, run_id))[0]
                reason = str(first.message or "").partition(":")[0] if first.name == "Skipped" else None
            else:
                reason = skip.code if skip else None
    except TimeoutError:
        raise PrefectUnreachable("Prefect took too long to take a webhook's run") from None
    status: Literal["accepted", "skipped"] = "skipped" if reason else "accepted"
    log.info(
        "delivery.%s webhook=%s delivery=%r run=%s%s",
        "repeated" if repeated else status,
        door.rule.id,
        delivery.id,
        run_id,
        f" reason={reason}" if reason else "",
    )
    return Accepted(status, run_id, run_url(run_id), reason, repeated)


def new_delivery_id() -> str:
    """An id for a delivery whose caller gave none."""
    return str(uuid.uuid4())


async def _gate(service: Service, door: Door, delivery: Delivery) -> Skip | None:
    rule = door.rule
    if door.paused:
        return Skip("disabled", "the rule is paused in Prefect")
    if rule.when is not None:
        scope = expression_scope(
            rule, datetime.now(UTC), cause="webhook", payload=delivery.body, headers=delivery.headers
        )
        if (why := why_false(rule.when, scope)) is not None:
            return Skip("condition_false", f"when: {why}")
    match await judge_call(service.delivering, rule, door.deployment_id, delivery.payload):
        case Skip() as skip:
            return skip
        case Run() | Hold():  # the gate inside the run holds it, where it can be resolved
            return None
