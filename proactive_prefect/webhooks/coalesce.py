"""Many deliveries, one run: which belong together, and when they have waited long enough."""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy.ext.asyncio import AsyncSession

from ..ledger.deliveries import join_group
from ..ledger.tables import Delivery
from ..rules.coalesce import Coalesce
from ..rules.conditions import expression_scope, value_of
from ..rules.models import WebhookRule


def group_of(rule: WebhookRule, at: datetime, body: Any, headers: dict[str, str]) -> str | None:
    """Which of the rule's deliveries this one belongs to; None for one that is a run of its own. Pure."""
    if rule.coalesce is None:
        return None
    if rule.coalesce.key is None:
        return "*"
    value = value_of(rule.coalesce.key, expression_scope(rule, at, cause="webhook", payload=body, headers=headers))
    if value is None:
        return None
    try:
        return json.dumps(value, sort_keys=True)[:1000]
    except (TypeError, ValueError):
        return str(value)[:1000]


async def close_group(
    session: AsyncSession, delivery: Delivery, coalesce: Coalesce | None, now: datetime
) -> Delivery | None:
    """The delivery that stands for the claimed one's group from now on; None while more may come.

    `coalesce` is what the rule says now: None, where it says so no more, is no reason to wait.
    """
    if delivery.status != "waiting":  # its group was closed for another of them, a moment ago
        return None
    if delivery.group_key is None or delivery.joined_id is not None:
        return delivery
    none = timedelta(0)
    window, max_wait = (coalesce.window, coalesce.max_wait) if coalesce else (none, none)
    return await join_group(session, delivery, now, window, max_wait)
