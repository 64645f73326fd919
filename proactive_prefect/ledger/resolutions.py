"""Who decided what about a missed occurrence. The first decision stands; later ones are told so and change nothing."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from .log import NewEvent, append, lock_log
from .tables import Occurrence, Resolution, ResolutionAction


async def resolution_of(session: AsyncSession, occurrence_id: int) -> Resolution | None:
    """The decision about an occurrence, if there is one."""
    found: Resolution | None = await session.scalar(
        select(Resolution).where(col(Resolution.occurrence_id) == occurrence_id)
    )
    return found


async def resolve(
    session: AsyncSession,
    occurrence: Occurrence,
    action: ResolutionAction,
    *,
    by: str,
    via: str,
    at: datetime,
    run_id: str | None = None,
    target: datetime | None = None,
    log: bool = True,
) -> tuple[Resolution, bool]:
    """Record a decision, and log `missed_resolved`; returns the one that stands, and whether it is this one.

    `by` is the principal, `via` the way it came (api, cli, page, rule, prefect). The caller then lets
    `occurrences.settle` write down what that makes of the occurrence.
    """
    await lock_log(session)
    assert occurrence.id is not None  # it comes from the database
    first = await resolution_of(session, occurrence.id)
    if first is not None:
        return first, False
    made = Resolution(
        occurrence_id=occurrence.id,
        action=action,
        resolved_by=by,
        via=via,
        at=at,
        run_id=run_id,
        target=target,
        carried_at=at if via == "prefect" else None,
    )
    session.add(made)
    await session.flush()
    if log:
        await append(session, [_resolved(occurrence, made)])
    return made, True


def _resolved(occurrence: Occurrence, made: Resolution) -> NewEvent:
    payload: dict[str, Any] = {"due": occurrence.due.isoformat(), "run_id": made.run_id, "action": made.action}
    payload |= {"resolved_by": made.resolved_by, "via": made.via}
    if made.target is not None:
        payload["target"] = made.target.isoformat()
    key = f"resolved:{occurrence.rule_id}:{occurrence.key}"
    return NewEvent(
        key,
        "missed_resolved",
        occurrence.kind,
        occurrence.rule_id,
        occurrence.owner_id,
        made.at,
        made.action,
        payload,
        session_id=occurrence.session_id,
    )
