"""How the heartbeats did last, by the account."""

from __future__ import annotations

import json
from datetime import datetime

from pydantic import BaseModel, Field
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from ..ledger.tables import Occurrence, RuleVersion, Wake
from ..ledger.versions import latest_versions
from ..ledger.wakes import waiting


class HeartbeatRun(BaseModel):
    """What became of a heartbeat's occurrence."""

    rule_id: str
    session_id: str | None
    due: datetime
    status: str = Field(description="The occurrence's outcome; `running` while its run is at work.")
    reason: str | None
    started_at: datetime | None
    ended_at: datetime | None
    run_id: str | None
    wakes: list[str] = Field(description="Why it was woken beside being due.")


class Waiting(BaseModel):
    """A wake that no run has begun with yet."""

    rule_id: str
    mode: str
    reason: str
    session_id: str | None
    asked_at: datetime


class HeartbeatLast(BaseModel):
    """The heartbeats at a glance. `last` is the latest of `heartbeats`; None before any was due."""

    last: HeartbeatRun | None
    heartbeats: list[HeartbeatRun] = Field(description="The latest of each heartbeat rule that is deployed.")
    waiting: list[Waiting]


async def last_heartbeats(
    session: AsyncSession, *, session_id: str | None = None, rule_id: str | None = None
) -> HeartbeatLast:
    """The latest of each deployed heartbeat rule; only those of a session, or only one, if given."""
    rules = {
        version.rule_id: bound_to
        for version in (await latest_versions(session)).values()
        if version.kind == "heartbeat"
        and version.status != "deleted"
        and rule_id in (None, version.rule_id)
        and ((bound_to := _session_of(version)) == session_id or session_id is None)
    }
    found = []
    for rule, bound_to in sorted(rules.items()):
        query = (
            select(Occurrence)
            .where(
                col(Occurrence.rule_id) == rule,
                (col(Occurrence.outcome) != "expected") | col(Occurrence.running),
            )
            .order_by(col(Occurrence.due).desc())
            .limit(1)
        )
        one = await session.scalar(query)
        if one is not None:
            found.append(await _run(session, one, bound_to))
    return HeartbeatLast(
        last=max(found, key=lambda one: one.started_at or one.due, default=None),
        heartbeats=found,
        waiting=[
            Waiting(
                rule_id=wake.rule_id,
                mode=wake.mode,
                reason=wake.reason,
                session_id=wake.session_id,
                asked_at=wake.asked_at,
            )
            for wake, _ in await waiting(session)
            if wake.rule_id in rules
        ],
    )


def _session_of(version: RuleVersion) -> str | None:
    found = json.loads(version.snapshot).get("session")
    return found if isinstance(found, str) else None


async def _run(session: AsyncSession, one: Occurrence, bound_to: str | None) -> HeartbeatRun:
    told = select(col(Wake.reason)).where(col(Wake.rule_id) == one.rule_id, col(Wake.run_id) == one.run_id)
    return HeartbeatRun(
        rule_id=one.rule_id,
        session_id=bound_to,
        due=one.due,
        status="running" if one.running else one.outcome,
        reason=one.reason or None,
        started_at=one.started_at,
        ended_at=one.ended_at,
        run_id=one.run_id,
        wakes=list((await session.scalars(told.order_by(col(Wake.id)).limit(20))).all()) if one.run_id else [],
    )
