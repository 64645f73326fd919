"""The worker's looks for runs: the server is asked, which knows limits, priorities and pauses."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Container
from datetime import UTC, datetime
from logging import Logger, LoggerAdapter
from typing import Any
from uuid import UUID

from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.objects import FlowRun
from prefect.exceptions import ObjectNotFound

from .retries import waits_for_a_worker
from .slots import Slots
from .turns import Turns
from .wake import SLOW_LOOK, UNCOMMITTED, Alarm, Ears, FarLooks

_AHEAD = 300.0  # seconds for which instants are fetched ahead
_AHEAD_AGAIN = 2.0  # seconds at least between two times that all queues of a pool with a limit are asked
_REREAD = 1200.0  # seconds for which the pool and its queues are taken to be as they were, while no event tells more
_BLIND_LOOK = 10.0  # seconds between two looks while no events arrive: as often as any Prefect worker
_PAGE = 200  # runs that the server offers at most: there may be more
_NEXT_PAGE = 5.0  # seconds until it is asked for more, in which so many do not end


class Looks:
    """Looks when something may be due, begins what is, and sets the alarm for what will be.

    `begin` is called with each run that is due; `begun` holds those that were begun and have not ended.
    """

    def __init__(
        self,
        pool: str,
        queues: list[str],
        slots: Slots,
        *,
        begin: Callable[[FlowRun], None],
        begun: Container[UUID],
        logger: Logger | LoggerAdapter[Any],
    ) -> None:
        self._pool = pool
        self._queues = queues
        self._slots = slots
        self._begin = begin
        self._begun = begun
        self._logger = logger
        self._turns = Turns()
        self._sought: set[UUID] = set()
        self._early: dict[UUID, FlowRun] = {}  # as they were before they were put off
        self._not_before: dict[UUID, float] = {}
        self.paused = False
        self._named: list[str] = []  # the pool's queues, or those that were chosen
        self._ahead_again = 0.0
        self._absent = False  # the pool, or a queue that was chosen
        self._reread = 0.0  # when the pool and its queues are to be read again
        self.alarm = Alarm()
        self.far = FarLooks()
        self.last = time.time()

    def seek(self, run_id: UUID) -> None:
        """An event told of a run that is or will be due."""
        self._sought.add(run_id)
        self.alarm.ring()

    def put_off(self, run_id: UUID, until: float) -> None:
        """A run could not begin: begin it at `until` (epoch seconds), whatever the server says of it before."""
        self._not_before = {key: at for key, at in self._not_before.items() if at > time.time()} | {run_id: until}
        self.alarm.set(run_id, until)

    def hasten(self, flow_run: FlowRun) -> None:
        """A run that was put off may go now, if the server, which knows limits and pauses, has room for it."""
        self._early[flow_run.id] = flow_run
        self.look_far()

    def look_far(self) -> None:
        """A slot of a pool or a queue is free: what there was no room for is not among the instants that are known."""
        self.far.now()
        self.alarm.ring()

    def seek_all(self) -> None:
        """Events may have been missed."""
        self._reread = 0.0
        self.far.now()
        self.alarm.ring()

    def heed_change(self) -> None:
        """A deployment, a queue, or the pool changed."""
        self._reread = 0.0
        self.far.after_change()
        self.alarm.ring()

    def is_regular(self, every: float) -> bool:
        """Whether there was a look lately, for a worker that were to look `every` so many seconds."""
        return time.time() - self.last < max(3 * SLOW_LOOK, 30 * every)

    async def watch(self, client: PrefectClient, ears: Ears) -> None:
        """Look until cancelled."""
        while True:
            began, far = time.time(), self.far.take()
            if not ears.connected:
                self._reread = 0.0
            try:
                await self.look(client, self.alarm.lead(), far=far)
                if far:
                    self.far.done(began)
            except Exception as error:
                self.far.now()  # whatever this look was to find
                self._logger.warning("Could not look for runs: %s", error or type(error).__name__)
                await asyncio.sleep(2)
            blind = [] if ears.connected else [time.time() + _BLIND_LOOK]
            await self.alarm.wait(until=min([self.far.next(), *blind]))

    async def look(self, client: PrefectClient, lead: float, *, far: bool) -> None:
        """Ask for runs, begin those due within `lead` seconds, and on a far look set the alarm for later ones."""
        sought, self._sought, asked = self._sought, set(), time.time()
        self.last = asked
        try:
            if far and asked >= self._reread:
                await self._read_pool(client, asked)
            if self.paused:  # its release is an event; to ask for runs meanwhile would disturb those who make them
                self._rest(asked, far)
                return
            if not far and len(sought) == 1 and self._slots.unlimited and not self.alarm.has(asked + lead):
                run_id = sought.pop()
                if not await self._read(client, run_id, asked + lead):
                    self._seek_again(asked)
                return
            limited = self._slots.limited
            until = _AHEAD if far and (not limited or self._early) else lead  # what was put off is for later, there
            offered = await self._ask(client, self._queues, asked + until)
            later = await self._ask_ahead(client, asked) if far and limited else None
        except ObjectNotFound as error:
            self._say_absent(error)
            self._rest(asked, far)  # the next sign of life makes the pool, if that is what there is not
            return
        self._absent = False
        instants: dict[UUID, float] = {}
        for run in offered:
            sought.discard(run.id)
            if (instant := self._begin_if_due(run, asked + lead)) is not None:
                instants[run.id] = instant
        for run in later or []:
            instant = self._instant(run)
            if instant is not None and instant > asked + lead:
                instants[run.id] = instant
        if len(offered) >= _PAGE:
            self.far.at(asked + _NEXT_PAGE)
        self.alarm.renew(asked + lead, instants)
        if far:
            self._early.clear()  # those that there was room for have begun
            if later is not None or not limited:
                self.alarm.replace(instants)
        elif any(run_id not in self._begun for run_id in sought):
            self._seek_again(asked)

    async def _ask(self, client: PrefectClient, queues: list[str], until: float) -> list[FlowRun]:
        """The runs due up to `until` that the server has room for, the queues of higher priority first."""
        before = datetime.fromtimestamp(until, UTC)
        found = await client.get_scheduled_flow_runs_for_work_pool(self._pool, queues, scheduled_before=before)
        return [entry.flow_run for entry in found]

    async def _ask_ahead(self, client: PrefectClient, asked: float) -> list[FlowRun] | None:
        """Runs to come in a pool with a limit: each queue by itself, or one that comes would hide one that is due.

        None: it was asked a moment ago, and will be again.
        """
        if asked < self._ahead_again:
            self.far.at(self._ahead_again)
            return None
        self._ahead_again = asked + _AHEAD_AGAIN
        return [run for queue in self._named for run in await self._ask(client, [queue], asked + _AHEAD)]

    def _rest(self, asked: float, far: bool) -> None:
        """Nothing can begin: forget what would have, and look again after a while."""
        self.alarm.replace({})
        if far:
            self.far.at(asked + _BLIND_LOOK)

    def _say_absent(self, error: ObjectNotFound) -> None:
        if not self._absent:
            queues = f" or one of its queues {', '.join(self._queues)}" if self._queues else ""
            self._logger.warning("There is no work pool %r%s: %s", self._pool, queues, error)
        self._absent = True

    async def _read_pool(self, client: PrefectClient, asked: float) -> None:
        self._reread = asked + _REREAD
        try:
            pool, queues = await client.read_work_pool(self._pool), await client.read_work_queues(self._pool)
        except Exception:
            self._reread = 0.0
            raise
        self._slots.know(pool, queues)
        self._named = self._queues or [queue.name for queue in queues]
        self.paused = pool.is_paused
        if self.paused:
            self._reread = 0.0

    def _seek_again(self, asked: float) -> None:
        """A run that an event told of was not found: it may be for later, or is not committed yet."""
        for after in UNCOMMITTED:
            self.far.at(asked + after)

    async def _read(self, client: PrefectClient, run_id: UUID, until: float) -> bool:
        """Look at one run by itself, in half the time, where no limit and no pause decides which goes first.

        Gives whether it was begun, or its instant is known.
        """
        try:
            later = self._begin_if_due(await client.read_flow_run(run_id), until)
        except ObjectNotFound:
            return False
        if later is not None:
            self.alarm.set(run_id, later)
        return later is not None or run_id in self._begun

    def _instant(self, flow_run: FlowRun) -> float | None:
        """When a run begins; None: it does not wait, or for its own process."""
        due = self._turns.begins(flow_run)
        if due is None or flow_run.id in self._begun or not waits_for_a_worker(flow_run):
            return None
        return max(due, self._not_before.get(flow_run.id, 0.0))

    def _begin_if_due(self, flow_run: FlowRun, until: float) -> float | None:
        """Begin a run that waits and is due up to `until`; when one that is due later begins."""
        due = self._instant(flow_run)
        if due is None:
            return None
        if flow_run.id in self._early:
            flow_run, due = self._early[flow_run.id], min(due, until)
        if due > until:
            return due
        self.alarm.unset(flow_run.id)
        self._early.pop(flow_run.id, None)
        self._begin(flow_run)
        return None
