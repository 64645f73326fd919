"""Finds what Prefect's events left out: the runs and rules themselves are compared with the account.

Looked at are the runs that are due and have not ended, those that ended since the last look, and those that the account
says are not settled. Only a run that differs costs a request of its own, for its history. The look of one process does
no harm to that of another, or to what the stream tells meanwhile: everything is applied by the ids of states.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from sqlalchemy import select
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError, StatementError
from sqlmodel import col

from ..prefect_api import PrefectApi
from ..prefect_api.changes import RuleRun, runs_at, runs_by_id, runs_ended, state_history
from ..prefect_api.deployments import Deployment, read_deployments
from ..prefect_api.events import StateChange
from ..settings import Settings
from .cursors import BEGAN, RECONCILED, move, read_cursor
from .db import Ledger
from .log import retention_start
from .occurrences import apply, apply_deletion, apply_return, known_runs, latest_runs, open_runs
from .outcomes import RunRef, StateFact
from .tables import RuleVersion, Run
from .versions import SeenRule, Status, note_rules

log = logging.getLogger("proactive.ledger")

# How far back the first look of a new ledger goes; what is older is Prefect's history, not ours.
FIRST_LOOK = timedelta(days=7)
# Prefect's clock may differ from ours, and its transactions end after the times that they write.
_MARGIN = timedelta(minutes=5)
_BATCH = 50
_AT_ONCE = 10  # runs in a transaction: on SQLite the callers of webhooks wait for its end


async def reconcile(api: PrefectApi, ledger: Ledger, settings: Settings) -> int:
    """Compare once; how many runs were behind. Raises Refused, PrefectUnreachable: then nothing is taken for read.

    Nor is it where runs are gone and the server has nothing else either that the account knows: it is another one.
    """
    now = datetime.now(UTC)
    is_ours = await reconcile_rules(api, ledger, settings)
    async with ledger.read() as session:
        since = await read_cursor(session, RECONCILED) or now - FIRST_LOOK
        unsettled = {run.run_id for run in await open_runs(session)}
    # In this order: a run that ends between the two looks is seen by the second.
    found = {run.run_id: run for run in await runs_at(api, now)}
    found |= {run.run_id: run for run in await runs_ended(api, since - _MARGIN)}
    found |= {run.run_id: run for run in await runs_by_id(api, sorted(unsettled - found.keys()))}
    async with ledger.read() as session:
        known = await known_runs(session, found)
        latest = await latest_runs(session)
    gone = sorted(unsettled - found.keys())
    if gone and not (known or is_ours or await runs_by_id(api, latest)):
        log.warning("ledger.stranger open=%d: Prefect knows no run and no rule of this ledger", len(gone))
        return 0
    for run_id, (run, _) in known.items():
        if run.deleted_at is not None:
            async with ledger.write() as session:
                await apply_return(session, run_id, now)
    behind = [one for one in found.values() if _differs(one, known[one.run_id][0] if one.run_id in known else None)]
    for first in range(0, len(behind), _BATCH):
        some = behind[first : first + _BATCH]
        histories = [(to_ref(one), await state_history(api, one.run_id)) for one in some]
        await apply_runs(ledger, histories, settings)
    for run_id in gone:
        async with ledger.write() as session:
            await apply_deletion(session, run_id, now, log_since=retention_start(settings, now))
    async with ledger.write() as session:
        if await read_cursor(session, BEGAN) is None:
            await move(session, BEGAN, since)
        await move(session, RECONCILED, now)
    if behind:
        log.info("ledger.reconciled runs=%d", len(behind))
    return len(behind)


async def reconcile_rules(api: PrefectApi, ledger: Ledger, settings: Settings) -> bool:
    """Note what the rules are now; whether the account knew one of them, as deployed there, before.

    Raises Refused, PrefectUnreachable.
    """
    now = datetime.now(UTC)
    seen = [_seen(found) for found in await read_deployments(api) if found.is_a_rule]
    async with ledger.write() as session:
        looked = await read_cursor(session, RECONCILED)
        known = set((await session.scalars(select(col(RuleVersion.deployment_id)).distinct())).all())
        await note_rules(session, seen, now, log_since=retention_start(settings, now), looked=looked)
    return any(rule.deployment_id in known for rule in seen)


async def apply_runs(ledger: Ledger, told: Sequence[tuple[RunRef, Sequence[StateChange]]], settings: Settings) -> None:
    """Apply what was told of these runs, a few in a transaction; what cannot be stored is left out, and said."""
    for first in range(0, len(told), _AT_ONCE):
        await _apply_some(ledger, told[first : first + _AT_ONCE], settings)


async def _apply_some(ledger: Ledger, told: Sequence[tuple[RunRef, Sequence[StateChange]]], settings: Settings) -> None:
    try:
        await _apply_all(ledger, told, settings)
    except (StatementError, ValueError) as error:
        broken = isinstance(error, DBAPIError) and error.connection_invalidated
        if broken or isinstance(error, (OperationalError, InterfaceError)):
            raise  # the database is away: all of it comes again
        if len(told) == 1:
            log.error("ledger.refused run=%s: %s", told[0][0].run_id, type(error).__name__)
            return
        for one in told:
            await _apply_some(ledger, [one], settings)


async def _apply_all(ledger: Ledger, told: Sequence[tuple[RunRef, Sequence[StateChange]]], settings: Settings) -> None:
    log_since = retention_start(settings, datetime.now(UTC))
    async with ledger.write() as session:
        for ref, changes in told:
            await apply(session, ref, [to_fact(change) for change in changes], log_since=log_since)


def to_ref(run: RuleRun) -> RunRef:
    """The run, in the account's words."""
    return RunRef(
        run_id=run.run_id,
        name=run.name,
        deployment_id=run.deployment_id,
        rule_id=run.rule_id,
        kind=run.kind,
        owner_id=run.owner_id,
        due=run.due,
        cause=run.cause,
        created=run.created,
        delivery_id=run.delivery_id,
        origin=run.origin,
        session_id=run.session_id,
    )


def to_fact(change: StateChange) -> StateFact:
    """The state, in the account's words."""
    return StateFact(
        run_id=change.run_id,
        state_id=change.state_id,
        type=change.type,
        name=change.name,
        message=change.message,
        at=change.at,
        before=change.before,
    )


def _differs(run: RuleRun, known: Run | None) -> bool:
    return known is None or known.last_state_id != run.state_id or (run.started and known.first_running_at is None)


def _seen(found: Deployment) -> SeenRule:
    snapshot = found.snapshot or {}
    status: Status
    if not snapshot.get("enabled", True):
        status = "disabled"
    elif found.paused or (found.schedule is not None and not found.schedule["active"]):
        status = "paused"
    else:
        status = "active"
    return SeenRule(
        rule_id=found.name,
        kind=found.flow_name,
        deployment_id=found.id,
        snapshot=found.data["parameters"]["rule"],
        status=status,
        created=datetime.fromisoformat(found.data["created"]),
        updated=datetime.fromisoformat(found.data["updated"]),
    )
