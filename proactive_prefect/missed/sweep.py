"""Finds every due time that was not kept, whatever was down, and sees to it that exactly one thing becomes of it.

A work of the gateway; one process of all that have the ledger open does it at a time. Each round it compares what the
rules were due with what the ledger knows, and only where something is missing it looks at Prefect itself. Every step is
found done if it is done again, so a round that dies is just begun anew by the next.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import uuid
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import assert_never

from sqlalchemy.exc import SQLAlchemyError

from ..errors import ProactiveError
from ..firing.facts import gather, occurrence_of
from ..firing.gate import Hold, Run, Skip, decide
from ..firing.outcome import missed, skipped
from ..ledger.cursors import move
from ..ledger.db import Ledger
from ..ledger.leases import hold, release
from ..ledger.reconcile import reconcile
from ..prefect_api import PrefectApi
from ..prefect_api.client import Refused
from ..prefect_api.missed import crash_run, create_missed, drop_run, hold_run, retry_run, runs_with_ids
from ..prefect_api.orphans import Watch
from ..prefect_api.runs import FlowRun, set_state
from ..rules.durations import format_duration
from ..rules.models import Rule
from ..rules.state_names import SKIPPED
from ..settings import Settings
from .carry import carry_out, has_more
from .expected import read_rule
from .plan import ABANDONED, NEVER_BEGUN, SWEPT, Gap, Plan, longest, make_plan
from .record import (
    abandoned_runs,
    held_by_rule,
    lost_approvals,
    note_left_out,
    note_restored,
    note_skips,
    stale_held,
)
from .resolve import learn, resolve_missed

log = logging.getLogger("proactive.missed")

LEASE = "sweep"
LEASE_LENGTH = timedelta(seconds=20)
ROUND_EVERY = 10.0  # seconds
_RENEW = 5.0
_LOOK = 1.0  # for turns that have come
_BATCH = 20
_QUEUES = ("queue_one", "queue_all")


async def sweep(api: PrefectApi, ledger: Ledger, stop: asyncio.Event, settings: Settings) -> None:
    """Sweep until `stop` is set; no failure of Prefect or of the database ends it."""
    sweeper = Sweeper(api, ledger, settings)
    holder = str(uuid.uuid4())
    while not stop.is_set():
        if await _hold(ledger, holder):
            jobs = [asyncio.create_task(job()) for job in (sweeper.rounds, sweeper.carry, sweeper.watch)]
            try:
                while not stop.is_set() and await _hold(ledger, holder):
                    await _pause(stop, _RENEW)
            finally:
                for job in jobs:
                    job.cancel()
                await asyncio.gather(*jobs, return_exceptions=True)
                with contextlib.suppress(SQLAlchemyError, OSError):
                    await release(ledger, LEASE, holder)
        await _pause(stop, _RENEW)


class Sweeper:
    """What one process does while it has the lease. None of its works ends of itself, whatever fails: all are tried
    again after a pause, since nobody else does them for as long as the lease is held.
    """

    def __init__(self, api: PrefectApi, ledger: Ledger, settings: Settings) -> None:
        self._api = api
        self._ledger = ledger
        self._settings = settings
        self._has_looked = False

    async def rounds(self) -> None:
        """Round after round."""
        while True:
            try:
                await self.round(datetime.now(UTC))
            except Exception as error:
                log.warning("missed.sweep failed: %s", _said(error))
            await asyncio.sleep(ROUND_EVERY)

    async def watch(self) -> None:
        """Look after the runs of workers that died with their machines."""
        watch = Watch(self._api)
        while True:
            try:
                ended = await watch.look()
                if ended:
                    await learn(self._ledger, self._api, self._settings, ended)
            except Exception as error:
                log.warning("missed.watch failed: %s", _said(error))
            await asyncio.sleep(ROUND_EVERY)

    async def carry(self) -> None:
        """Carry out decisions as their turns come, also those of processes that have died since."""
        while True:
            try:
                await self._ledger.wait_for_write(_LOOK)
                while await has_more(self._ledger) and await carry_out(self._ledger, self._api, self._settings):
                    pass
            except Exception as error:
                log.warning("missed.carry failed: %s", _said(error))
            await asyncio.sleep(_LOOK)

    async def round(self, now: datetime) -> Plan:
        """Account for every due time up to `now`; returns what was found. Raises PrefectError."""
        plan = await self._plan(now)
        if not plan.is_empty or not self._has_looked:
            # The ledger may be behind; Prefect is asked before anything is called missing.
            await reconcile(self._api, self._ledger, self._settings)
            self._has_looked = True
            plan = await self._plan(now)
        await note_left_out(self._ledger, plan.left_out, now)
        await note_skips(self._ledger, [gap for gap in plan.gaps if isinstance(gap.decision, Skip)], now)
        made_all = await self._make([gap for gap in plan.gaps if not isinstance(gap.decision, Skip)])
        await self._settle_late([late.run_id for late in plan.late], now)
        await self._end_abandoned(plan.abandoned, now)
        await self._retry_abandoned(now)
        await self._restore_approved()
        await self._drop_stale(now)
        async with self._ledger.read() as session:
            by_rule = await held_by_rule(session)
        if by_rule:
            await resolve_missed(
                self._ledger, self._api, self._settings, by_rule, "approve_backfill_run", by="rule", via="rule"
            )
        if made_all:
            async with self._ledger.write() as session:
                await move(session, SWEPT, now)
        if not plan.is_empty:
            log.info("missed.swept gaps=%d late=%d left_out=%d", len(plan.gaps), len(plan.late), len(plan.left_out))
        return plan

    async def _plan(self, now: datetime) -> Plan:
        async with self._ledger.read() as session:
            return await make_plan(session, now, self._settings.missed_limit)

    async def _make(self, gaps: Sequence[Gap]) -> bool:
        """Make the runs that Prefect never made, held as Missed; False if some could not be, yet."""
        made_all = True
        for first in range(0, len(gaps), _BATCH):
            made: list[str] = []
            for gap in gaps[first : first + _BATCH]:
                assert gap.deployment_id is not None  # without one, the gap is skipped
                assert not isinstance(gap.decision, Skip)
                held = missed(gap.decision if isinstance(gap.decision, Hold) else _in_turn(gap.rule, gap.due))
                try:
                    run = await create_missed(self._api, gap.deployment_id, gap.rule.id, gap.snapshot, gap.due, held)
                except Refused as refused:
                    if refused.status != 404:
                        raise
                    made_all = False  # the deployment went away: the next round knows
                    continue
                made.append(str(run.id))
            await learn(self._ledger, self._api, self._settings, made)
        return made_all

    async def _settle_late(self, run_ids: Sequence[str], now: datetime) -> None:
        """Let the gate decide about runs that nobody has started in time, as it would when somebody did."""
        for first in range(0, len(run_ids), _BATCH):
            some = run_ids[first : first + _BATCH]
            settled = [str(run.id) for run in await runs_with_ids(self._api, some) if await self._settle(run, now)]
            if settled:
                await learn(self._ledger, self._api, self._settings, settled)

    async def _settle(self, run: FlowRun, now: datetime) -> bool:
        rule = read_rule(str(run.parameters.get("rule")))
        if rule is None or run.state is None:
            return False
        if run.state.is_pending() and run.state.timestamp < now - NEVER_BEGUN:
            text = f"it was claimed {run.state.timestamp:%Y-%m-%d %H:%M:%S} UTC, and has never begun"
            return await hold_run(self._api, run, missed(Hold(text)))
        if not run.state.is_scheduled():
            return False
        occurrence = occurrence_of(run, rule)
        if occurrence.cause != "schedule" or now <= occurrence.due + rule.grace:
            return False
        decision = decide(rule, occurrence, await gather(self._api, rule, run, ask_session=False))
        match decision:
            case Skip():
                await set_state(self._api, run.id, skipped(decision))
                return True
            case Hold():
                return await hold_run(self._api, run, missed(decision))
            case Run():
                if rule.on_missed == "ask" or rule.on_overlap in _QUEUES:
                    return False  # it waits in Prefect's own queue, behind a run of its rule
                return await hold_run(self._api, run, missed(_in_turn(rule, occurrence.due)))
            case _:
                assert_never(decision)

    async def _end_abandoned(self, run_ids: Sequence[str], now: datetime) -> None:
        """End runs whose process is gone, on workers that do not see to that: what they did is not known."""
        for run in await runs_with_ids(self._api, run_ids):
            rule = read_rule(str(run.parameters.get("rule")))
            if rule is None or run.state is None or not run.state.is_running():
                continue
            if run.state.timestamp + longest(rule) + ABANDONED < now:
                text = f"Abandoned: it had to end within {format_duration(longest(rule))}, and gave no more sign."
                await crash_run(self._api, run.id, text)
                await learn(self._ledger, self._api, self._settings, [str(run.id)])

    async def _retry_abandoned(self, now: datetime) -> None:
        """Run again what its process abandoned, where the rule says that it may, as one of its retries."""
        async with self._ledger.read() as session:
            run_ids = await abandoned_runs(session, now)
        for run in await runs_with_ids(self._api, run_ids):
            rule = read_rule(str(run.parameters.get("rule")))
            if rule is not None and rule.retry_abandoned and await retry_run(self._api, run.id, now, most=rule.retries):
                log.info("missed.retried run=%s rule=%s", run.id, rule.id)
                await learn(self._ledger, self._api, self._settings, [str(run.id)])

    async def _restore_approved(self) -> None:
        """Make the approved runs again that Prefect deleted before they began, as it does when a rule is paused."""
        async with self._ledger.read() as session:
            lost = await lost_approvals(session)
        held = missed(Hold("it was approved, and its run deleted in Prefect before it began; it runs in its turn"))
        for occurrence, then, now in lost:
            assert occurrence.id is not None  # it comes from the database
            assert now.deployment_id is not None  # nor does one without
            try:
                run = await create_missed(
                    self._api, now.deployment_id, occurrence.rule_id, then.snapshot, occurrence.due, held
                )
            except Refused as refused:
                if refused.status != 404:
                    raise
                continue  # the deployment went away: the next round knows
            await learn(self._ledger, self._api, self._settings, [str(run.id)])
            await note_restored(self._ledger, occurrence.id, str(run.id))
            log.info("missed.restored run=%s rule=%s", run.id, occurrence.rule_id)

    async def _drop_stale(self, now: datetime) -> None:
        """Skip what nobody has decided about while it was worth running."""
        async with self._ledger.read() as session:
            found = await stale_held(session, now)
        for first in range(0, len(found), _BATCH):
            some = found[first : first + _BATCH]
            for run_id, length in some:
                text = f"stale: nobody decided within {format_duration(length)} of its due time"
                await drop_run(self._api, run_id, text, name=SKIPPED, only_held=True)
            await learn(self._ledger, self._api, self._settings, [run_id for run_id, _ in some])


def _in_turn(rule: Rule, due: datetime) -> Hold:
    return Hold(f"due {due:%Y-%m-%d %H:%M:%S} UTC, and not started in time; it runs in its turn ({rule.on_missed})")


async def _hold(ledger: Ledger, holder: str) -> bool:
    try:
        return await hold(ledger, LEASE, holder, LEASE_LENGTH)
    except (SQLAlchemyError, OSError) as error:
        log.warning("missed.lease failed: %s", type(error).__name__)
        return False


async def _pause(stop: asyncio.Event, seconds: float) -> None:
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(stop.wait(), seconds)


def _said(error: Exception) -> str:
    return error.message if isinstance(error, ProactiveError) else type(error).__name__
