"""The deliveries that were accepted, to look at, to erase, and to forget after their retention."""

from __future__ import annotations

from dataclasses import dataclass, fields
from datetime import datetime

from sqlalchemy import ColumnElement, delete, func, select, update
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import aliased
from sqlmodel import col

from .tables import Delivery

_PRUNED_AT_ONCE = 5_000


@dataclass(frozen=True)
class Glance:
    """A delivery in a list: what there is to know about it, without what its caller sent."""

    id: str
    rule_id: str
    delivery_id: str
    received_at: datetime
    status: str
    reason: str
    run_id: str | None
    joined_id: str | None
    attempts: int
    settled_at: datetime | None
    replay_of: str | None
    erased_at: datetime | None
    payload_size: int


_GLANCED = [Delivery.__table__.c[one.name] for one in fields(Glance) if one.name != "payload_size"]  # type: ignore[attr-defined]  # SQLModel does not type it


async def last_deliveries(
    session: AsyncSession,
    limit: int,
    *,
    rule_id: str | None = None,
    status: str | None = None,
    before_id: str | None = None,
) -> list[Glance]:
    """The latest deliveries, the latest first: of one rule, of one status, older than another one, as given."""
    query = select(*_GLANCED, func.length(col(Delivery.payload))).order_by(col(Delivery.id).desc()).limit(limit)
    if rule_id is not None:
        query = query.where(col(Delivery.rule_id) == rule_id)
    if status is not None:
        query = query.where(col(Delivery.status) == status)
    if before_id is not None:
        query = query.where(col(Delivery.id) < before_id)
    return [Glance(*found) for found in (await session.execute(query)).all()]


async def find_delivery(session: AsyncSession, name: str) -> Delivery | None:
    """The delivery of that `id`, or else the latest that its sender called so."""
    found = await session.get(Delivery, name)
    if found is None:
        query = select(Delivery).where(col(Delivery.delivery_id) == name).order_by(col(Delivery.id).desc()).limit(1)
        found = (await session.scalars(query)).first()
    return found


async def erase(
    session: AsyncSession,
    now: datetime,
    *,
    name: str | None = None,
    rule_id: str | None = None,
    before: datetime | None = None,
) -> int:
    """Take away what callers sent, headers and payload, of settled deliveries; how many.

    What became of them stays, and with it that a repeat is one. One that still waits is not touched, nor one that is
    part of what waits.
    """
    settled = (col(Delivery.status) != "waiting", ~_part_of_what_waits(), col(Delivery.erased_at).is_(None))
    query = update(Delivery).where(*settled).execution_options(synchronize_session=False)
    if name is not None:
        query = query.where(col(Delivery.id) == name)
    if rule_id is not None:
        query = query.where(col(Delivery.rule_id) == rule_id)
    if before is not None:
        query = query.where(col(Delivery.received_at) < before)
    done = await session.execute(query.values(headers="{}", payload="null", fingerprint=None, erased_at=now))
    return int(done.rowcount)  # type: ignore[attr-defined]


async def forget(session: AsyncSession, before: datetime) -> int:
    """Delete settled deliveries that were settled before then, the oldest first, at most some thousands; how many."""
    old = (
        select(col(Delivery.id))
        .where(col(Delivery.received_at) < before, col(Delivery.status) != "waiting", col(Delivery.settled_at) < before)
        .where(~_part_of_what_waits())
        .order_by(col(Delivery.received_at))
        .limit(_PRUNED_AT_ONCE)
    )
    ids = (await session.scalars(old)).all()
    if not ids:
        return 0
    done = await session.execute(delete(Delivery).where(col(Delivery.id).in_(ids)))
    return int(done.rowcount)  # type: ignore[attr-defined]


def _part_of_what_waits() -> ColumnElement[bool]:
    stands = aliased(Delivery)
    return (
        select(col(stands.id))
        .where(col(stands.id) == col(Delivery.joined_id), col(stands.status) == "waiting")
        .exists()
    )
