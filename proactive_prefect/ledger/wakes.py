"""Reasons to wake heartbeats: asked for once, and kept until a run that was told them began.

A wake for a session reaches the heartbeats of that session and those bound to none, which watch over everything; a
wake without a session reaches every heartbeat. Which rules those are is decided when it is asked for.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Literal

from pydantic import ValidationError
from sqlalchemy import delete, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from ..rules.models import RuleBase, from_snapshot
from .log import NewEvent, append, lock_log
from .tables import Event, RuleVersion, Run, Wake
from .versions import latest_versions, version_at, versions_of

Mode = Literal["now", "next"]
REASON_LENGTH = 500
# What ended longer ago than this before it was found out wakes nobody any more.
_NEWS = timedelta(hours=1)


async def ask(
    session: AsyncSession,
    *,
    key: str,
    mode: Mode,
    reason: str,
    by: str,
    session_id: str | None = None,
    rule_id: str | None = None,
) -> list[Wake]:
    """Ask to wake the heartbeats that this reaches (or only `rule_id`), and log it; in a session of `Ledger.write`.

    Returns the wakes, one for each rule; those of the same `key` that were asked for before come back as they are.
    None where no such heartbeat is active.
    """
    await lock_log(session)
    # By rule, since the index of the keys is: whoever writes waits for this.
    heartbeats = select(col(RuleVersion.rule_id)).where(col(RuleVersion.kind) == "heartbeat")
    found = select(Wake).where(col(Wake.rule_id).in_(heartbeats), col(Wake.key) == key)
    asked = (await session.scalars(found)).all()
    if asked:
        return list(asked)
    now = datetime.now(UTC)
    made, events = [], []
    for version in await _reached(session, session_id, rule_id):
        wake = Wake(
            rule_id=version.rule_id,
            key=key,
            mode=mode,
            reason=" ".join(reason.split())[:REASON_LENGTH],
            session_id=session_id,
            asked_at=now,
        )
        session.add(wake)
        made.append(wake)
        events.append(_event(version, wake, by))
    await session.flush()
    await append(session, events)
    return made


async def wake_after(session: AsyncSession, logged: Iterable[Event]) -> None:
    """Wake heartbeats for the runs whose end was just logged, where their rules say so; in the same transaction."""
    for event in logged:
        if event.source == "heartbeat" or not event.event_type.endswith(("_run_completed", "_run_failed")):
            continue
        rule = await _rule_then(session, event.source_ref, event.occurred_at_utc)
        mode = _mode(rule) if rule is not None else "off"
        if rule is None or mode == "off" or event.recorded_at - event.occurred_at_utc > _NEWS:
            continue
        message = event.payload.get("message")
        told = f": {message}" if isinstance(message, str) and message else ""
        await ask(
            session,
            key=f"ended:{event.payload.get('run_id')}:{event.status}",
            mode=mode,
            reason=f"{event.source} {event.source_ref} ended: {event.status}{told}",
            by="rule",
            session_id=rule.session,
        )


async def waiting(session: AsyncSession) -> Sequence[tuple[Wake, Run | None]]:
    """Every wake that no run began with yet, oldest first, with what the account knows of the run that carries it."""
    query = (
        select(Wake, Run).outerjoin(Run, col(Run.run_id) == col(Wake.run_id)).where(col(Wake.delivered_at).is_(None))
    )
    found = [(wake, run) for wake, run in (await session.execute(query)).tuples()]
    # In order here: SQLite would go through all that there ever were, since their ids are in order.
    return sorted(found, key=lambda one: one[0].id or 0)


async def prune_wakes(session: AsyncSession, before: datetime) -> None:
    """Take away the wakes that were delivered before `before`."""
    await session.execute(delete(Wake).where(col(Wake.delivered_at) < before))


def _mode(rule: RuleBase) -> Literal["now", "next", "off"]:
    return rule.wake_heartbeat or ("next" if rule.session is not None else "off")


async def _rule_then(session: AsyncSession, rule_id: str, at: datetime) -> RuleBase | None:
    """The rule as it was at `at`, or as it was first seen; None where it never was, or cannot be read any more."""
    versions = await versions_of(session, rule_id)
    version = version_at(versions, at) or next(iter(versions), None)
    try:
        return from_snapshot(version.snapshot) if version is not None else None
    except ValidationError:
        return None


async def _reached(session: AsyncSession, session_id: str | None, rule_id: str | None) -> list[RuleVersion]:
    found = []
    for version in (await latest_versions(session)).values():
        if version.kind != "heartbeat" or version.status != "active" or rule_id not in (None, version.rule_id):
            continue
        bound_to = json.loads(version.snapshot).get("session")
        if rule_id is not None or session_id is None or bound_to in (None, session_id):
            found.append(version)
    return sorted(found, key=lambda version: version.rule_id)


def _event(version: RuleVersion, wake: Wake, by: str) -> NewEvent:
    return NewEvent(
        f"wake:{wake.rule_id}:{wake.key}",
        "heartbeat_woken",
        "heartbeat",
        wake.rule_id,
        str(json.loads(version.snapshot).get("owner", "local")),
        wake.asked_at,
        wake.mode,
        {"reason": wake.reason, "by": by},
        session_id=wake.session_id,
    )
