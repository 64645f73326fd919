"""The decision about a missed occurrence: recorded in the ledger first, then carried out in Prefect.

The command, the API, the page and rules themselves (`on_missed`) all decide here; what is decided in Prefect's own UI
the ledger's feed records. The first decision stands. Once it is recorded nothing can lose it: if this process dies
before Prefect was told, the next round of the sweep tells it.
"""

from __future__ import annotations

import getpass
import logging
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Literal

from pydantic import BaseModel, Field
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from ..errors import InputError, PrefectError
from ..ledger.db import Ledger
from ..ledger.log import lock_log
from ..ledger.occurrences import known_runs, settle
from ..ledger.reconcile import apply_runs, to_ref
from ..ledger.resolutions import resolution_of, resolve
from ..ledger.tables import Occurrence, Resolution, ResolutionAction
from ..ledger.versions import latest_versions
from ..prefect_api import PrefectApi
from ..prefect_api.changes import runs_by_id, state_history
from ..prefect_api.missed import held_runs
from ..settings import Settings
from .carry import carry_out

log = logging.getLogger("proactive.missed")

_BATCH = 200
_CLOCKS_APART = timedelta(minutes=1)
_FARTHEST = timedelta(days=3660)

Via = Literal["api", "cli", "page", "sdk", "rule"]


class Resolved(BaseModel):
    """What stands about one occurrence after a decision was asked for."""

    occurrence_id: int
    rule_id: str
    kind: str
    due: datetime
    status: Literal["resolved", "already", "not_missed"] = Field(
        description="resolved: by this request. already: an earlier decision stands. not_missed: there is nothing "
        "to decide."
    )
    outcome: str = Field(description="What has become of the occurrence so far.")
    run_id: str | None
    action: str | None = Field(default=None, description="The decision that stands.")
    by: str | None = None
    via: str | None = None
    at: datetime | None = None
    target: datetime | None = Field(default=None, description="Of reschedule: to when.")
    carried_out: bool = Field(default=False, description="false: an approved run waits for its turn, or for Prefect.")


async def resolve_missed(
    ledger: Ledger,
    api: PrefectApi,
    settings: Settings,
    occurrence_ids: Iterable[int],
    action: ResolutionAction,
    *,
    by: str,
    via: Via,
    target: datetime | None = None,
) -> list[Resolved]:
    """Decide about these occurrences, and carry it out as far as Prefect answers and turns allow.

    Returns what stands about each, in the order given; asking again changes nothing. `by` is the principal; `target`
    is for reschedule. Raises InputError, before anything is changed, for an id that no occurrence has, for a target
    that is missing, naive, past or out of reach, and for reschedule of a rule that was deleted.
    """
    ids = list(dict.fromkeys(occurrence_ids))
    now = datetime.now(UTC)
    _check_target(action, target, now)
    async with ledger.read() as session:
        found = await _occurrences(session, ids)
        if action == "reschedule":
            await _check_rules(session, found)
    made: set[int] = set()
    for first in range(0, len(ids), _BATCH):
        async with ledger.write() as session:
            await lock_log(session)
            for occurrence in await _occurrences(session, ids[first : first + _BATCH]):
                if occurrence.outcome == "missed" and await _record(session, occurrence, action, by, via, now, target):
                    made.add(occurrence.id or 0)
    if made:
        log.info("missed.resolved action=%s via=%s count=%d", action, via, len(made))
        try:
            await carry_out(ledger, api, settings)
        except PrefectError as error:
            log.warning("missed.carry failed: %s", error.message)
    async with ledger.read() as session:
        return [await _resolved(session, one, one.id in made) for one in await _occurrences(session, ids)]


async def occurrence_of_run(ledger: Ledger, api: PrefectApi, settings: Settings, run_id: str) -> int:
    """The id of the occurrence that a flow run belongs to, also of one that the ledger has not heard of yet.

    Raises InputError if there is no such run of a rule, PrefectError.
    """
    for _ in range(2):
        async with ledger.read() as session:
            known = await known_runs(session, [run_id])
        if run_id in known and known[run_id][0].last_state_id is not None:
            occurrence = known[run_id][1]
            assert occurrence.id is not None  # it comes from the database
            return occurrence.id
        await learn(ledger, api, settings, [run_id])
    raise InputError(f"no run {run_id} of a rule is known", hint="`proactive missed list` shows those that wait.")


async def learn(ledger: Ledger, api: PrefectApi, settings: Settings, run_ids: Sequence[str]) -> None:
    """Let the ledger know now what Prefect knows of these runs, rather than when its events come."""
    told = [(to_ref(run), await state_history(api, run.run_id)) for run in await runs_by_id(api, run_ids)]
    if told:
        await apply_runs(ledger, told, settings)


async def learn_held(ledger: Ledger, api: PrefectApi, settings: Settings) -> None:
    """Let the ledger know of every run that Prefect holds as missed, also where no gateway feeds it. PrefectError."""
    held = await held_runs(api)
    for first in range(0, len(held), _BATCH):
        some = held[first : first + _BATCH]
        async with ledger.read() as session:
            known = await known_runs(session, some)
        new = [run_id for run_id in some if run_id not in known or known[run_id][0].held_at is None]
        await learn(ledger, api, settings, new)


def this_user() -> str:
    """The principal of a decision that is made on this machine, without a token: who is logged in."""
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a container's user without a name
        return "local"


async def find_missed(
    session: AsyncSession, *, rule_ids: Sequence[str] | None = None, before: datetime | None = None
) -> Sequence[Occurrence]:
    """The occurrences that wait for a decision, oldest first: of these rules, and due before then, if given."""
    query = select(Occurrence).where(col(Occurrence.outcome) == "missed").order_by(col(Occurrence.due))
    if rule_ids is not None:
        query = query.where(col(Occurrence.rule_id).in_(list(rule_ids)))
    if before is not None:
        query = query.where(col(Occurrence.due) < before)
    return (await session.scalars(query)).all()


async def _record(
    session: AsyncSession,
    occurrence: Occurrence,
    action: ResolutionAction,
    by: str,
    via: Via,
    at: datetime,
    target: datetime | None,
) -> bool:
    _, is_first = await resolve(
        session, occurrence, action, by=by, via=via, at=at, run_id=occurrence.run_id, target=target
    )
    if is_first:
        await settle(session, occurrence)
    return is_first


def _check_target(action: ResolutionAction, target: datetime | None, now: datetime) -> None:
    if action != "reschedule":
        if target is not None:
            raise InputError(f"{action} takes no time; allowed: with reschedule")
        return
    if target is None:
        raise InputError("reschedule needs the time to run at; allowed: ISO 8601 with an offset")
    if target.tzinfo is None:
        raise InputError(f"{target.isoformat()} has no offset; allowed: an aware datetime")
    if not now - _CLOCKS_APART <= target <= now + _FARTHEST:
        raise InputError(
            f"{target.isoformat()} is not a time to come; allowed: from now on, up to ten years",
            hint="approve runs a missed run now.",
        )


async def _check_rules(session: AsyncSession, found: Iterable[Occurrence]) -> None:
    latest = await latest_versions(session)
    for rule_id in {one.rule_id for one in found}:
        if rule_id in latest and latest[rule_id].status == "deleted":
            raise InputError(f"the rule {rule_id!r} was deleted; allowed: to delete its missed runs")


async def _occurrences(session: AsyncSession, ids: Sequence[int]) -> list[Occurrence]:
    by_id: dict[int | None, Occurrence] = {}
    for first in range(0, len(ids), 500):
        query = select(Occurrence).where(col(Occurrence.id).in_(ids[first : first + 500]))
        by_id |= {one.id: one for one in (await session.scalars(query)).all()}
    unknown = [one for one in ids if one not in by_id]
    if unknown:
        raise InputError(f"no occurrence {unknown[0]} is known", hint="`proactive missed list` shows those that wait.")
    return [by_id[one] for one in ids]


async def _resolved(session: AsyncSession, occurrence: Occurrence, mine: bool) -> Resolved:
    assert occurrence.id is not None  # it comes from the database
    stands: Resolution | None = await resolution_of(session, occurrence.id)
    answer = Resolved(
        occurrence_id=occurrence.id,
        rule_id=occurrence.rule_id,
        kind=occurrence.kind,
        due=occurrence.due,
        status="resolved" if mine else "already" if stands else "not_missed",
        outcome=occurrence.outcome,
        run_id=occurrence.run_id,
    )
    if stands is None:
        return answer
    return answer.model_copy(
        update={
            "action": stands.action,
            "by": stands.resolved_by,
            "via": stands.via,
            "at": stands.at,
            "target": stands.target,
            "carried_out": stands.carried_at is not None,
        }
    )
