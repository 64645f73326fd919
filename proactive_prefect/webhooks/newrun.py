"""The run that a delivery gets: what Prefect is sent."""

from __future__ import annotations

import secrets

from ..firing.gate import Skip
from ..firing.outcome import skipped
from ..ledger.tables import Delivery
from ..prefect_api.runs import PAYLOAD_LABEL, NewRun
from ..rules.models import WebhookRule
from ..tracing import LABEL
from .inbox import INLINE


def run_key(rule_id: str, delivery_id: str) -> str:
    """The idempotency key of a delivery's run."""
    return f"webhook {rule_id} {delivery_id}"


def new_run(rule: WebhookRule, delivery: Delivery, skip: Skip | None) -> NewRun:
    """The run of a delivery, in the trace of its call: to start now, or ended already as skipped."""
    inline = len(delivery.payload) <= INLINE
    labels = {} if inline else {PAYLOAD_LABEL: delivery.id}
    if delivery.traceparent is not None:
        labels[LABEL] = delivery.traceparent
    return NewRun(
        idempotency_key=run_key(rule.id, delivery.delivery_id),
        name=f"{rule.id}-{secrets.token_hex(4)}",
        payload=delivery.payload if inline else None,
        state=skipped(skip) if skip else None,
        cause="webhook",
        labels=labels,
    )
