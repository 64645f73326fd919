"""Brings wakes to heartbeats: a run of their own now, or a word to their next run.

One gateway at a time does it, by a lease that it takes only while there is something to bring. A wake is done when the
account says that the run which carries it has begun; where that run was skipped or is gone, the next one gets it. So
a crash at any line delays a reason, and may at worst have it told twice; none is lost.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
import uuid
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from sqlalchemy.exc import SQLAlchemyError
from sqlmodel import col, update

from ..errors import PrefectError
from ..ledger.db import Ledger
from ..ledger.leases import hold, release
from ..ledger.outcomes import action_began
from ..ledger.tables import Run, Wake
from ..ledger.versions import latest_versions
from ..ledger.wakes import waiting
from ..prefect_api import PrefectApi, Refused
from ..prefect_api.changes import runs_by_id
from ..prefect_api.wakes import next_run, run_with_wakes, tell, wakes_of
from ..rules.state_names import SKIPPED

log = logging.getLogger("proactive.heartbeat")

LEASE = "wakes"
_LEASE_LENGTH = timedelta(seconds=30)
_LOOK = 2.0  # seconds between two looks for what other processes asked for
_LOOK_FOR_RUNS = 10.0
_AFTER_FAILURE = 5.0
_PAGE = 500


async def keep_waking(api: PrefectApi, ledger: Ledger, stop: asyncio.Event) -> None:
    """Bring every wake until `stop` is set; no failure of Prefect or of the database ends it."""
    waker = _Waker(api, ledger)
    while not stop.is_set():
        pause = _LOOK
        try:
            if not await waker.bring_all():
                await ledger.wait_for_write(_LOOK)
                pause = 0.05  # what is written together is brought together
        except (PrefectError, SQLAlchemyError, OSError) as error:
            log.warning("wake.delayed: %s", error.message if isinstance(error, PrefectError) else type(error).__name__)
            pause = _AFTER_FAILURE
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), pause)


class _Waker:
    def __init__(self, api: PrefectApi, ledger: Ledger) -> None:
        self._api = api
        self._ledger = ledger
        self._name = str(uuid.uuid4())
        self._looked = 0.0

    async def bring_all(self) -> bool:
        """One pass; whether something waits for Prefect to have a run that it can be brought to."""
        async with self._ledger.read() as session:
            found = [(wake, _stand(wake, run)) for wake, run in await waiting(session)]
        found = await self._without_gone_runs(found)
        if all(stand == "carried" for _, stand in found):
            return False
        if not await hold(self._ledger, LEASE, self._name, _LEASE_LENGTH):
            return True
        try:
            await _settle(self._ledger, found)
            by_rule: dict[str, list[Wake]] = {}
            for wake, stand in found:
                if stand == "free":
                    by_rule.setdefault(wake.rule_id, []).append(wake)
            stuck = False
            for rule_id, wakes in by_rule.items():
                carried = [wake for wake, stand in found if stand == "carried" and wake.rule_id == rule_id]
                stuck |= not await _bring(self._api, self._ledger, rule_id, wakes, carried)
            return stuck
        finally:
            with contextlib.suppress(SQLAlchemyError, OSError):
                await release(self._ledger, LEASE, self._name)

    async def _without_gone_runs(self, found: list[tuple[Wake, str]]) -> list[tuple[Wake, str]]:
        """Now and then: runs that Prefect has no more, as a redeploy deletes those to come, carry nothing."""
        ids = {wake.run_id for wake, stand in found if stand == "carried" and wake.run_id}
        if not ids or time.monotonic() - self._looked < _LOOK_FOR_RUNS:
            return found
        there = {run.run_id for run in await runs_by_id(self._api, sorted(ids))}
        self._looked = time.monotonic()
        return [(wake, "lost" if stand == "carried" and wake.run_id not in there else stand) for wake, stand in found]


def _stand(wake: Wake, run: Run | None) -> str:
    """Where a wake stands: free (no run carries it), carried, began (its run did), or lost (its run never will)."""
    if wake.run_id is None:
        return "free"
    if run is None:  # for the future, or not heard of yet
        return "carried"
    began = action_began(run)  # not where the run was only the gate's, which then held it
    if run.ended_name == SKIPPED or (began is None and (run.ended_at or run.deleted_at) is not None):
        return "lost"
    if began is None:
        return "carried"
    return "began" if run.ended_at is not None or _past_the_gate(began) else "carried"


def _past_the_gate(began: datetime) -> bool:
    # The gate, the run's first step, may still skip it; it never takes so long.
    return datetime.now(UTC) - began > timedelta(seconds=30)


async def _settle(ledger: Ledger, found: Sequence[tuple[Wake, str]]) -> None:
    done = [wake for wake, stand in found if stand in ("began", "lost")]
    if not done:
        return
    stands = {wake.id: stand for wake, stand in found}
    async with ledger.write() as session:
        for wake in done:
            change = {"delivered_at": datetime.now(UTC)} if stands[wake.id] == "began" else {"run_id": None}
            await session.execute(
                update(Wake).where(col(Wake.id) == wake.id, col(Wake.run_id) == wake.run_id).values(**change)
            )
    for wake in done:
        log.info(
            "wake.%s rule=%s run=%s", "delivered" if stands[wake.id] == "began" else "again", wake.rule_id, wake.run_id
        )


async def _bring(api: PrefectApi, ledger: Ledger, rule_id: str, wakes: Sequence[Wake], carried: Sequence[Wake]) -> bool:
    """Bring what is free to runs of the rule; False where there is no run to bring it to yet."""
    async with ledger.read() as session:
        version = (await latest_versions(session)).get(rule_id)
    if version is None or version.status == "deleted" or version.deployment_id is None:
        await _note(ledger, wakes, delivered_at=datetime.now(UTC))
        log.warning("wake.dropped rule=%s: the rule is gone", rule_id)
        return True
    now = [wake for wake in wakes if wake.mode == "now" and not wake.tried_now]
    if now:
        # Of its own kind of run: the reasons of all that wait are told at once.
        reasons = [wake.reason for wake in wakes]
        run = await run_with_wakes(api, version.deployment_id, reasons, key=f"wake {rule_id} {now[0].key}")
        # After a crash it is the run of before: what came since then is not on it, and goes to the next.
        told = wakes_of(run)
        await _note(ledger, [wake for wake in wakes if wake.reason in told], run_id=str(run.id))
        await _note(ledger, now, tried_now=True)
        log.info("wake.now rule=%s run=%s", rule_id, run.id)
        return True
    run_or_none = await next_run(api, version.deployment_id)
    if run_or_none is None:
        return False
    known = [*(wake for wake in carried if wake.run_id == str(run_or_none.id)), *wakes]
    try:
        sure = await tell(api, run_or_none.id, [wake.reason for wake in sorted(known, key=lambda one: one.id or 0)])
    except Refused as refused:
        if refused.status == 404:
            return False
        raise
    if sure:
        await _note(ledger, wakes, run_id=str(run_or_none.id))
        log.info("wake.next rule=%s run=%s", rule_id, run_or_none.id)
    return sure


async def _note(ledger: Ledger, wakes: Sequence[Wake], **values: object) -> None:
    async with ledger.write() as session:
        for first in range(0, len(wakes), _PAGE):
            ids = [wake.id for wake in wakes[first : first + _PAGE]]
            await session.execute(update(Wake).where(col(Wake.id).in_(ids)).values(**values))
