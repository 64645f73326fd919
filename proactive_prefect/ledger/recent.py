"""What became of each rule lately."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import UTC, datetime

from sqlalchemy import func, or_, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import aliased
from sqlmodel import col

from .tables import Occurrence, RuleVersion

_LONG_AGO = datetime(1970, 1, 1, tzinfo=UTC)


async def last_occurrences(
    session: AsyncSession, rule_ids: Collection[str], count: int
) -> Mapping[str, list[Occurrence]]:
    """The latest `count` occurrences of each of the rules, the oldest first; what has not begun is not among them."""
    # The database looks up one place in the index for each rule, however long the account is.
    rules = select(col(RuleVersion.rule_id)).where(col(RuleVersion.rule_id).in_(list(rule_ids))).distinct().subquery()
    earlier = aliased(Occurrence)
    begun = or_(col(earlier.outcome) != "expected", col(earlier.running))
    first = (
        select(col(earlier.due))
        .where(col(earlier.rule_id) == rules.c.rule_id, begun)
        .order_by(col(earlier.due).desc())
        .offset(count - 1)
        .limit(1)
        .correlate(rules)
        .scalar_subquery()
    )
    query = (
        select(Occurrence)
        .join(rules, col(Occurrence.rule_id) == rules.c.rule_id)
        .where(
            col(Occurrence.due) >= func.coalesce(first, _LONG_AGO),
            or_(col(Occurrence.outcome) != "expected", col(Occurrence.running)),
        )
        .order_by(col(Occurrence.due), col(Occurrence.id))
    )
    found: dict[str, list[Occurrence]] = {}
    for occurrence in (await session.scalars(query)).all():
        found.setdefault(occurrence.rule_id, []).append(occurrence)
    return {rule_id: occurrences[-count:] for rule_id, occurrences in found.items()}
