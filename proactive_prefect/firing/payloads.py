"""A webhook's payload that is too large for Prefect's parameters: fetched from the inbox just before the action."""

from __future__ import annotations

from prefect.client.schemas.objects import FlowRun

from ..errors import ActionError, ProactiveError
from ..prefect_api.runs import PAYLOAD_LABEL
from ..rules.models import RuleBase, WebhookRule

_WHERE = (
    "A payload of more than 256 KiB stays in the gateway's inbox: run such webhooks where PROACTIVE_DATABASE_URL, "
    "or PROACTIVE_HOME, is the gateway's."
)


async def fetch_payload(run: FlowRun, rule: RuleBase) -> str | None:
    """The payload that was left in the inbox for this run; None where it came along, or there is none.

    Raises ActionError where this process has another ledger than the gateway, or the payload is there no more.
    """
    delivery_id = run.labels.get(PAYLOAD_LABEL)
    if not isinstance(delivery_id, str) or not isinstance(rule, WebhookRule):
        return None
    from ..ledger.db import open_ledger  # here, because few runs need a database
    from ..ledger.deliveries import payload_of, read_delivery

    try:
        async with open_ledger() as ledger, ledger.read() as session:
            delivery = await read_delivery(session, delivery_id)
            if delivery is None or delivery.erased_at is not None:
                gone = "was erased from the inbox" if delivery else "is not in the inbox that this worker uses"
                raise ActionError(f"the payload {gone} (delivery {delivery_id})", hint=_WHERE)
            return await payload_of(session, delivery)
    except ActionError:
        raise
    except ProactiveError as error:
        raise ActionError(f"the payload cannot be fetched from the inbox: {error.message}", hint=_WHERE) from None
