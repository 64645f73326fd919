"""What each rule was, and whether it was active, at any time: noted whenever it is seen to have changed in Prefect."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from .log import NewEvent, append, lock_log
from .tables import RuleVersion

Status = Literal["active", "paused", "disabled", "deleted", "unseen"]
"""unseen: it was touched while nobody looked, and what it was in between is not known."""

_TICK = timedelta(microseconds=1)
# A deployment is written more than once while it is made.
_MADE_WITHIN = timedelta(seconds=10)


@dataclass(frozen=True)
class SeenRule:
    """A rule as it is deployed now. `created` and `updated` are the deployment's; `snapshot` is the rule as JSON."""

    rule_id: str
    kind: str
    deployment_id: str
    snapshot: str
    status: Status
    created: datetime
    updated: datetime


async def note_rules(
    session: AsyncSession,
    seen: Iterable[SeenRule],
    now: datetime,
    *,
    log_since: datetime,
    looked: datetime | None = None,
) -> None:
    """Note all rules that are deployed now: what is new, changed or gone since the last time, and log it.

    `looked` is when that was, if it is known: of a rule that is as it was then and was touched since, as by a pause and
    a resume, it is noted that what it was in between is not known.
    """
    head = await lock_log(session)
    before = await latest_versions(session)
    there = {rule.rule_id: rule for rule in seen}
    events = []
    for rule in there.values():
        last = before.get(rule.rule_id)
        if last is None or last.status == "deleted":
            since, what = rule.created, "created"
        elif (last.snapshot, last.status, last.kind) != (rule.snapshot, rule.status, rule.kind):
            since, what = rule.updated, "updated"
        else:
            if looked is not None and rule.updated > max(looked, last.since):
                session.add(_version(rule, _after(last, looked, now), "unseen"))
                session.add(_version(rule, max(rule.updated, looked + _TICK), rule.status))
                head.revision += 1
            continue
        if what == "created" and rule.updated > rule.created + _MADE_WITHIN:
            # What it was before its last change nobody can tell.
            made = _after(last, since, now)
            session.add(_version(rule, made, "unseen"))
            session.add(_version(rule, max(rule.updated, made + _TICK), rule.status))
            events.append(_event(_version(rule, made, rule.status), what, []))
            continue
        version = _version(rule, _after(last, since, now), rule.status)
        session.add(version)
        events.append(_event(version, what, changed_keys(last.snapshot if last else "{}", rule.snapshot)))
    for last in before.values():
        if last.rule_id not in there and last.status != "deleted":
            version = RuleVersion(
                rule_id=last.rule_id,
                kind=last.kind,
                since=_after(last, now, now),
                status="deleted",
                deployment_id=last.deployment_id,
                snapshot=last.snapshot,
            )
            session.add(version)
            events.append(_event(version, "deleted", []))
    head.revision += len(events)
    await session.flush()
    await append(session, [event for event in events if event.occurred_at_utc >= log_since])


async def latest_versions(session: AsyncSession) -> Mapping[str, RuleVersion]:
    """The newest version of every rule there ever was, by its id."""
    newest = (
        select(func.max(col(RuleVersion.since)), col(RuleVersion.rule_id)).group_by(col(RuleVersion.rule_id)).subquery()
    )
    query = select(RuleVersion).join(
        newest, (newest.c.rule_id == col(RuleVersion.rule_id)) & (newest.c[0] == col(RuleVersion.since))
    )
    return {version.rule_id: version for version in (await session.scalars(query)).all()}


async def versions_of(session: AsyncSession, rule_id: str) -> Sequence[RuleVersion]:
    """Every version of a rule, the oldest first; none if no such rule was ever seen."""
    query = select(RuleVersion).where(col(RuleVersion.rule_id) == rule_id).order_by(col(RuleVersion.since))
    return (await session.scalars(query)).all()


def version_at(versions: Sequence[RuleVersion], at: datetime) -> RuleVersion | None:
    """The version that held at `at`; None before the first."""
    return next((version for version in reversed(versions) if version.since <= at), None)


def changed_keys(before: str, after: str) -> list[str]:
    """The keys of a rule that differ between two snapshots, in order."""
    old, new = _read(before), _read(after)
    return sorted(key for key in old.keys() | new.keys() if old.get(key) != new.get(key))


def _version(rule: SeenRule, since: datetime, status: Status) -> RuleVersion:
    return RuleVersion(
        rule_id=rule.rule_id,
        kind=rule.kind,
        since=since.astimezone(UTC),
        status=status,
        deployment_id=rule.deployment_id,
        snapshot=rule.snapshot,
    )


def _read(snapshot: str) -> dict[str, Any]:
    found = json.loads(snapshot)
    assert isinstance(found, dict)
    return found


def _after(last: RuleVersion | None, since: datetime, now: datetime) -> datetime:
    """When a version begins: as Prefect says, but after the one before it."""
    if last is None or since > last.since:
        return since.astimezone(UTC)
    return max(now, last.since + _TICK)


def _event(version: RuleVersion, what: str, changed: list[str]) -> NewEvent:
    status = "updated" if what == "updated" and changed else version.status
    owner = str(_read(version.snapshot).get("owner", "local"))
    payload: dict[str, Any] = {"deployment_id": version.deployment_id, "rule_status": version.status}
    if what == "updated":
        payload["changed"] = changed
    return NewEvent(
        f"job:{version.rule_id}:{version.since.isoformat()}",
        f"{version.kind}_job_{what}",
        version.kind,
        version.rule_id,
        owner,
        version.since,
        status,
        payload,
    )
