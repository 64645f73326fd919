"""Feeds the ledger from Prefect: its events as they come, what they left out soon after; and gives our events back.

One process of all that have the database open does it at a time, by a lease; the next one takes over when it dies.
That saves work; nothing depends on it, since all that is applied is applied by the ids that Prefect gave.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import uuid
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta

from sqlalchemy.exc import SQLAlchemyError

from ..errors import ProactiveError
from ..prefect_api import PrefectApi
from ..prefect_api.changes import runs_by_id
from ..prefect_api.events import Connected, DeploymentChange, StateChange, give_events, listen, our_event
from ..settings import Settings
from .db import Ledger
from .leases import hold, release
from .log import mark_emitted, prune, read_events, read_head, retention_start
from .occurrences import known_runs, ref_of
from .reconcile import apply_runs, reconcile, reconcile_rules, to_ref
from .tables import Event
from .wakes import prune_wakes

log = logging.getLogger("proactive.ledger")

LEASE = "feed"
LEASE_LENGTH = timedelta(seconds=15)
_RENEW = 4.0  # seconds
# An event that Prefect lost is found within this and the time of one look: together within a minute.
RECONCILE_EVERY = 30.0
_PRUNE_EVERY = timedelta(hours=1)
# Automations act on what Prefect is given: what was found out later than this after it happened is only logged.
_NEWS = timedelta(days=1)
_WAITING = 10_000  # changes that wait to be applied; beyond, they are left to the next look
_BATCH = 200
_GATHER = 0.1  # seconds: to ask Prefect about the runs of a burst one by one would cost it as much as to make them
_PAUSES = (0.2, 0.5, 1.0, 2.0, 5.0, 10.0)


async def feed(api: PrefectApi, ledger: Ledger, stop: asyncio.Event, settings: Settings | None = None) -> None:
    """Keep the ledger up to date until `stop` is set; no failure of Prefect or of the database ends it."""
    feeder = Feeder(api, ledger, settings or Settings())
    while not stop.is_set():
        try:
            mine = await hold(ledger, LEASE, feeder.name, LEASE_LENGTH)
        except (SQLAlchemyError, OSError) as error:
            log.warning("ledger.lease failed: %s", type(error).__name__)
            mine = False
        if mine:
            await feeder.work(stop)
        else:
            await _pause(stop, _RENEW)


class Feeder:
    """What one process does while it has the lease."""

    def __init__(self, api: PrefectApi, ledger: Ledger, settings: Settings) -> None:
        self.name = str(uuid.uuid4())
        self._api = api
        self._ledger = ledger
        self._settings = settings
        self._changes: asyncio.Queue[StateChange] = asyncio.Queue(_WAITING)
        self._look = asyncio.Event()
        self._look_at_rules = asyncio.Event()
        self._pruned = datetime.min.replace(tzinfo=UTC)

    async def work(self, stop: asyncio.Event) -> None:
        """Do all of it until `stop` is set or the lease is lost; then give the lease back."""
        self._look.set()
        jobs = (self._listen, self._apply, self._reconcile, self._reconcile_rules, self._emit)
        tasks = [asyncio.create_task(_again_and_again(job)) for job in jobs]
        try:
            await self._keep_lease(stop)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            with contextlib.suppress(SQLAlchemyError, OSError):
                await release(self._ledger, LEASE, self.name)

    async def _keep_lease(self, stop: asyncio.Event) -> None:
        while not stop.is_set():
            await _pause(stop, _RENEW)
            try:
                if not await hold(self._ledger, LEASE, self.name, LEASE_LENGTH):
                    log.info("ledger.lease lost")
                    return
            except (SQLAlchemyError, OSError) as error:
                log.warning("ledger.lease failed: %s", type(error).__name__)

    async def _listen(self) -> None:
        async for told in listen():
            match told:
                case Connected():
                    self._look.set()
                case DeploymentChange():
                    self._look_at_rules.set()
                case StateChange():
                    try:
                        self._changes.put_nowait(told)
                    except asyncio.QueueFull:
                        self._look.set()
        await asyncio.sleep(_PAUSES[0])  # the server closed it: connect again

    async def _apply(self) -> None:
        batch = [await self._changes.get()]
        try:
            await asyncio.sleep(_GATHER)
            while len(batch) < _BATCH and not self._changes.empty():
                batch.append(self._changes.get_nowait())
            await self._apply_batch(batch)
        except BaseException:
            self._look.set()  # what is not applied now is found by a look
            raise

    async def _apply_batch(self, batch: list[StateChange]) -> None:
        by_run: dict[str, list[StateChange]] = {}
        for change in batch:
            by_run.setdefault(change.run_id, []).append(change)
        async with self._ledger.read() as session:
            known = await known_runs(session, by_run)
        refs = {run_id: ref_of(occurrence, run) for run_id, (run, occurrence) in known.items()}
        unknown = sorted(by_run.keys() - refs.keys())
        refs |= {run.run_id: to_ref(run) for run in await runs_by_id(self._api, unknown)}
        now = datetime.now(UTC)
        # One of its schedule that is for the future is accounted for when it is due; what somebody planned, at once.
        told = [
            (ref, by_run[run_id])
            for run_id, ref in refs.items()
            if ref.due <= now or ref.cause != "schedule" or _moved(by_run[run_id])
        ]
        if told:
            await apply_runs(self._ledger, told, self._settings)

    async def _reconcile(self) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._look.wait(), RECONCILE_EVERY)
        self._look.clear()
        try:
            await reconcile(self._api, self._ledger, self._settings)
        except BaseException:
            self._look.set()
            raise
        now = datetime.now(UTC)
        if now - self._pruned > _PRUNE_EVERY:
            async with self._ledger.write() as session:
                await prune(session, retention_start(self._settings, now))
                await prune_wakes(session, retention_start(self._settings, now))
            self._pruned = now

    async def _reconcile_rules(self) -> None:
        await self._look_at_rules.wait()
        self._look_at_rules.clear()
        await reconcile_rules(self._api, self._ledger, self._settings)

    async def _emit(self) -> None:
        async with self._ledger.read() as session:
            head = await read_head(session)
            events = await read_events(session, since_seq=head.emitted, limit=_BATCH)
        if not events:
            await self._ledger.wait_for_write(1.0)
            return
        news = [event for event in events if event.occurred_at_utc > event.recorded_at - _NEWS]
        if news:
            await give_events(self._api, [_given(head.log_id, event) for event in news])
        async with self._ledger.write() as session:
            await mark_emitted(session, events[-1].seq)


async def _again_and_again(job: Callable[[], Awaitable[None]]) -> None:
    failures = 0
    while True:
        try:
            await job()
            failures = 0
        except Exception as error:  # whatever it is, the answer is to try again
            failures += 1
            told = error.message if isinstance(error, ProactiveError) else type(error).__name__
            name = getattr(job, "__name__", "job").strip("_")
            level = logging.WARNING if failures == 3 else logging.DEBUG
            # Where nobody answers, the place in the code says nothing more.
            place = not isinstance(error, ProactiveError | OSError)
            log.log(level, "ledger.%s failed: %s", name, told, exc_info=place)
        if failures:
            await asyncio.sleep(_PAUSES[min(failures, len(_PAUSES)) - 1])


async def _pause(stop: asyncio.Event, seconds: float) -> None:
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(stop.wait(), seconds)


def _moved(changes: list[StateChange]) -> bool:
    """Whether the run has done more than wait for its time."""
    return any(change.type != "SCHEDULED" for change in changes)


def _given(log_id: str, event: Event) -> dict[str, object]:
    run_id = event.payload.get("run_id")
    return our_event(
        event_id=f"{log_id} {event.seq}",
        event_type=event.event_type,
        occurred=event.occurred_at_utc,
        rule_id=event.source_ref,
        kind=event.source,
        run_id=run_id if isinstance(run_id, str) else None,
        payload={"seq": event.seq, "status": event.status, "owner_id": event.owner_id, **event.payload},
    )
