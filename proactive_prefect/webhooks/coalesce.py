"""Many deliveries, one run: which belong together, and when they have waited long enough."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from datetime import datetime
from typing import Any

from sqlalchemy.ext.asyncio import AsyncSession

from ..ledger.deliveries import CLAIMED_CHARACTERS, join_group, payload_of
from ..ledger.tables import Delivery
from ..rules.coalesce import Coalesce
from ..rules.conditions import expression_scope, value_of
from ..rules.models import WebhookRule
from .targets import Targets

_LONGEST_KEY = 1000  # characters; of a longer one its digest stands for it


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
        key = json.dumps(value, sort_keys=True)
    except (TypeError, ValueError):
        key = str(value)
    if len(key) <= _LONGEST_KEY:
        return key
    return f"sha256 {hashlib.sha256(key.encode(errors='surrogatepass')).hexdigest()}"


async def close_groups(
    session: AsyncSession, taken: Iterable[Delivery], targets: Targets, now: datetime
) -> list[tuple[Delivery, str]]:
    """Those of the claimed deliveries that are to have a run now, or that stand for their groups; what each run gets.

    A group whose webhook is not known stays as it is: nobody can say how long it waits, and what its run gets.
    """
    mine: dict[str, tuple[Delivery, str]] = {}
    looked_at: set[tuple[str, str | None]] = set()
    room = CLAIMED_CHARACTERS
    for delivery in taken:
        found: Delivery | None = delivery
        if is_open(delivery) and (target := targets.get(delivery.rule_id)) is not None:
            coalesce, group = target.rule.coalesce, (delivery.rule_id, delivery.group_key)
            if coalesce is not None and group in looked_at:  # for another of them
                continue
            looked_at.add(group)
            found = await close_group(session, delivery, coalesce, now)
        if found is None or found.id in mine:
            continue
        payload = await payload_of(session, found)
        room -= len(payload)
        if mine and room < 0:  # a claim does not know how large a group is
            found.holder, found.due_at = None, now
        else:
            mine[found.id] = (found, payload)
    return list(mine.values())


async def close_group(
    session: AsyncSession, delivery: Delivery, coalesce: Coalesce | None, now: datetime
) -> Delivery | None:
    """The delivery that stands for the claimed one's group from now on; None while more may come.

    `coalesce` is what the rule says now. Where it says so no more, what still waits for others is a run of its own.
    """
    if delivery.status != "waiting":  # its group was closed for another of them, a moment ago
        return None
    if not is_open(delivery):
        return delivery
    if coalesce is None:
        delivery.joined_id = delivery.id
        return delivery
    return await join_group(session, delivery, now, coalesce)


def is_open(delivery: Delivery) -> bool:
    """Whether it belongs to a group that was not closed yet, so that nobody can say what its run gets."""
    return delivery.group_key is not None and delivery.joined_id is None
