"""What people ask of an entry: decide about what was missed, run a rule now, pause it, resume it.

The decision about a missed occurrence is `missed.resolve`'s, from wherever it comes; the rest is Prefect's.
"""

from __future__ import annotations

from datetime import datetime
from typing import Literal, assert_never
from uuid import uuid4

from pydantic import BaseModel, Field
from sqlalchemy import select
from sqlmodel import col

from ..errors import InputError, UnknownRule
from ..ledger.db import Ledger
from ..ledger.tables import Occurrence, ResolutionAction, RuleVersion
from ..ledger.versions import latest_versions
from ..missed.resolve import Resolved, Via, resolve_missed
from ..prefect_api import PrefectApi
from ..prefect_api.pausing import pause_rule, resume_rule
from ..prefect_api.runs import create_run
from ..rules.models import from_snapshot
from ..settings import Settings
from .entries import CalendarAction
from .ids import EntryId, UnknownEntry, read_id


class NotMissed(InputError):
    """There is nothing to decide: it is not missed, or somebody decided otherwise before."""


class Acted(BaseModel):
    """What was done."""

    event_id: str
    action: CalendarAction
    source_ref: str = Field(description="The rule's id.")
    status: Literal["done", "already"] = Field(description="already: the same was decided before; nothing changed.")
    run_id: str | None = Field(default=None, description="The run that it is about, or that was made.")
    resolution: Resolved | None = Field(default=None, description="What stands about a missed occurrence.")


async def act(
    ledger: Ledger,
    api: PrefectApi,
    settings: Settings,
    event_id: str,
    action: CalendarAction,
    *,
    by: str,
    via: Via,
    target: datetime | None = None,
    request_id: str | None = None,
) -> Acted:
    """Do what was asked of an entry. `by` is the principal; `target` is for reschedule: when to run.

    Bears being asked twice; `run_now` does with the same `request_id`. Raises UnknownEntry, UnknownRule, NotMissed,
    InputError, PrefectError.
    """
    about = read_id(event_id)
    if action == "approve_backfill_run" or action == "reschedule" or action == "delete_missed":
        resolved = await _resolve(ledger, api, settings, event_id, about, action, by, via, target)
        done: Literal["done", "already"] = "done" if resolved.status == "resolved" else "already"
        return Acted(
            event_id=event_id,
            action=action,
            source_ref=about.rule_id,
            status=done,
            run_id=resolved.run_id,
            resolution=resolved,
        )
    if target is not None:
        raise InputError(f"{action} takes no target; allowed: with reschedule")
    version = await _deployed(ledger, about.rule_id)
    assert version.deployment_id is not None  # it is deployed
    run_id = None
    match action:
        case "run_now":
            key = f"calendar {about.rule_id} {request_id or uuid4()}"
            run_id = str((await create_run(api, version.deployment_id, idempotency_key=key)).id)
        case "pause":
            await pause_rule(api, version.deployment_id)
        case "resume":
            await resume_rule(api, version.deployment_id, enabled=from_snapshot(version.snapshot).enabled)
        case _:
            assert_never(action)
    return Acted(event_id=event_id, action=action, source_ref=about.rule_id, status="done", run_id=run_id)


async def find_occurrence(ledger: Ledger, about: EntryId, event_id: str) -> Occurrence | None:
    """The recorded occurrence that an id names; None for one that is yet to come. Raises InputError for a day's."""
    if about.key is None:
        raise InputError(f"{event_id!r} is a whole day of its rule; allowed: the event_id of one occurrence")
    async with ledger.read() as session:
        found: Occurrence | None = await session.scalar(
            select(Occurrence).where(col(Occurrence.rule_id) == about.rule_id, col(Occurrence.key) == about.key)
        )
    return found


async def _resolve(
    ledger: Ledger,
    api: PrefectApi,
    settings: Settings,
    event_id: str,
    about: EntryId,
    action: ResolutionAction,
    by: str,
    via: Via,
    target: datetime | None,
) -> Resolved:
    found = await find_occurrence(ledger, about, event_id)
    if found is None or found.id is None:
        raise UnknownEntry(f"the calendar has no occurrence {event_id!r}")
    (resolved,) = await resolve_missed(ledger, api, settings, [found.id], action, by=by, via=via, target=target)
    same = resolved.action == action and resolved.target == target
    if resolved.status == "not_missed":
        raise NotMissed(f"{event_id} is {resolved.outcome}; allowed: what is missed")
    if resolved.status == "already" and not same:
        raise NotMissed(f"{event_id} was decided before: {resolved.action}, by {resolved.by}")
    return resolved


async def _deployed(ledger: Ledger, rule_id: str) -> RuleVersion:
    async with ledger.read() as session:
        found = (await latest_versions(session)).get(rule_id)
    if found is None or found.status == "deleted" or found.deployment_id is None:
        raise UnknownRule(f"no rule {rule_id!r} is deployed")
    return found
