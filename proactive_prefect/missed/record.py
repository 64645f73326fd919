"""What the sweep writes down, and what it reads of those that are held."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from ..firing.gate import Skip
from ..ledger.db import Ledger
from ..ledger.leases import insert_into
from ..ledger.lifecycle import event_type
from ..ledger.log import NewEvent, append, lock_log
from ..ledger.occurrences import expect, settle
from ..ledger.tables import LeftOut, Occurrence, Resolution, RuleVersion, Run
from ..ledger.versions import latest_versions, version_at, versions_of
from ..rules.models import Rule
from .expected import read_rule
from .plan import OFF, Gap, LeftOutOf

_BATCH = 200
_RETRIED_FOR = timedelta(hours=1)  # a round that comes later than this after a crash does not run it again


async def note_skips(ledger: Ledger, gaps: Sequence[Gap], now: datetime) -> None:
    """Account for due times that the gate skips: there is no run of them in Prefect."""
    for first in range(0, len(gaps), _BATCH):
        async with ledger.write() as session:
            await lock_log(session)
            for gap in gaps[first : first + _BATCH]:
                await _note_skip(session, gap, now)


async def _note_skip(session: AsyncSession, gap: Gap, now: datetime) -> None:
    assert isinstance(gap.decision, Skip)
    rule = gap.rule
    occurrence = await expect(session, rule_id=rule.id, kind=rule.kind, owner_id=rule.owner, due=gap.due)
    if occurrence.skipped_as is not None:
        return
    occurrence.skipped_as = str(gap.decision)
    await settle(session, occurrence)
    payload = {"due": gap.due.isoformat(), "cause": "schedule", "run_id": None}
    payload |= {"message": str(gap.decision), "code": gap.decision.code}
    key = f"skipped:{rule.id}:{occurrence.key}"
    what = event_type(rule.kind, "skipped")
    await append(session, [NewEvent(key, what, rule.kind, rule.id, rule.owner, now, "skipped", payload)])


async def note_left_out(ledger: Ledger, found: Sequence[LeftOutOf], now: datetime) -> None:
    """Say which due times are not looked into, once."""
    if not found:
        return
    async with ledger.write() as session:
        await lock_log(session)
        for one in found:
            rule, omission = one.rule, one.omission
            values = {
                "rule_id": rule.id,
                "since": omission.since,
                "until": omission.until,
                "count": omission.count,
                "reason": omission.reason,
                "recorded_at": now,
            }
            insert = insert_into(session, LeftOut).values(values).on_conflict_do_nothing()
            if not (await session.execute(insert)).rowcount:  # type: ignore[attr-defined]
                continue
            payload = {
                "since": omission.since.isoformat(),
                "until": omission.until.isoformat(),
                "count": omission.count,
                "message": f"{omission.count} due times since {omission.since.isoformat()} are left out: "
                f"{omission.reason}",
            }
            key = f"left_out:{rule.id}:{omission.since.isoformat()}"
            what = event_type(rule.kind, "left_out")
            await append(session, [NewEvent(key, what, rule.kind, rule.id, rule.owner, now, "left_out", payload)])


async def held_by_rule(session: AsyncSession) -> list[int]:
    """The held occurrences that their rule itself lets run, unless it is switched off or gone by now."""
    latest = await latest_versions(session)
    off = {rule_id for rule_id, version in latest.items() if version.status in OFF}
    return [
        one.id
        for one, rule in await _held(session)
        if one.id and rule and rule.on_missed in ("run", "latest") and one.rule_id not in off
    ]


async def abandoned_runs(session: AsyncSession, now: datetime) -> list[str]:
    """The runs that ended unknown lately, of rules that are not at work since."""
    busy = select(col(Occurrence.rule_id)).where(col(Occurrence.running))
    query = (
        select(col(Run.run_id))
        .join(Occurrence, col(Occurrence.run_id) == col(Run.run_id))
        .where(
            col(Occurrence.outcome) == "unknown",
            col(Occurrence.ended_at) > now - _RETRIED_FOR,
            col(Run.last_type) == "CRASHED",
            col(Run.deleted_at).is_(None),
            col(Occurrence.rule_id).not_in(busy),
        )
    )
    return list((await session.scalars(query)).all())


async def lost_approvals(session: AsyncSession) -> list[tuple[Occurrence, RuleVersion, RuleVersion]]:
    """The approved occurrences whose run Prefect deleted while it waited to begin; with the rule as it was when they
    were due, and as it is now. Those of rules that are gone stay deleted.
    """
    query = (
        select(Occurrence)
        .join(Resolution, col(Resolution.occurrence_id) == col(Occurrence.id))
        .join(Run, col(Resolution.run_id) == col(Run.run_id))
        .where(
            col(Resolution.action) == "approve_backfill_run",
            col(Occurrence.outcome) == "deleted",
            # Deleted before it was let go, it was deleted by a person, who wants it not to run.
            col(Resolution.carried_at).is_not(None),
            col(Run.last_type).in_(("SCHEDULED", "PAUSED")),  # paused: the ledger heard nothing more of it
            col(Run.deleted_at).is_not(None),
        )
        .order_by(col(Occurrence.due))
    )
    found = []
    for occurrence in (await session.scalars(query)).all():
        versions = await versions_of(session, occurrence.rule_id)
        if versions and versions[-1].status != "deleted" and versions[-1].deployment_id is not None:
            found.append((occurrence, version_at(versions, occurrence.due) or versions[0], versions[-1]))
    return found


async def note_restored(ledger: Ledger, occurrence_id: int, run_id: str) -> None:
    """The approval holds for another run now, which waits for its turn."""
    async with ledger.write() as session:
        await lock_log(session)
        query = select(Resolution).where(col(Resolution.occurrence_id) == occurrence_id)
        resolution = (await session.scalars(query)).one()
        if resolution.run_id != run_id:
            resolution.run_id, resolution.carried_at = run_id, None


async def stale_held(session: AsyncSession, now: datetime) -> list[tuple[str, timedelta]]:
    """The runs that are held for longer than they are worth running, and how long that is."""
    return [
        (one.run_id, rule.stale_after)
        for one, rule in await _held(session)
        if one.run_id and rule and rule.stale_after and one.due + rule.stale_after < now and rule.on_missed == "ask"
    ]


async def _held(session: AsyncSession) -> list[tuple[Occurrence, Rule | None]]:
    """The occurrences that nobody has decided about, each with its rule as it was when it was due."""
    query = (
        select(Occurrence)
        .outerjoin(Resolution, col(Resolution.occurrence_id) == col(Occurrence.id))
        .where(col(Occurrence.outcome) == "missed", col(Resolution.id).is_(None))
        .order_by(col(Occurrence.due))
    )
    versions = {}
    found: list[tuple[Occurrence, Rule | None]] = []
    for occurrence in (await session.scalars(query)).all():
        if occurrence.rule_id not in versions:
            versions[occurrence.rule_id] = await versions_of(session, occurrence.rule_id)
        mine = versions[occurrence.rule_id]
        version = version_at(mine, occurrence.due) or (mine[0] if mine else None)
        found.append((occurrence, read_rule(version.snapshot) if version else None))
    return found
