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

from .slots import Slots
from .turns import Turns
from .wake import SLOW_LOOK, UNCOMMITTED, Alarm, Ears, FarLooks

_AHEAD = 300.0  # seconds for which instants are fetched ahead
_REREAD = 1200.0  # seconds for which the pool and its queues are taken to be as they were, while no event tells more
_BLIND_LOOK = 10.0  # seconds between two looks while no events arrive: as often as any Prefect worker


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
                self.far.at(asked + _BLIND_LOOK)
                return
            if not far and len(sought) == 1 and self._slots.unlimited and not self.alarm.has(asked + lead):
                run_id = sought.pop()
                if not await self._read(client, run_id, asked + lead):
                    self._seek_again(asked)
                return
            before = datetime.fromtimestamp(asked + (_AHEAD if far else lead), UTC)
            ask = client.get_scheduled_flow_runs_for_work_pool
            entries = await ask(self._pool, self._queues, scheduled_before=before)
        except ObjectNotFound:
            return  # there is no pool: the next sign of life makes it
        instants: dict[UUID, float] = {}
        for entry in entries:
            sought.discard(entry.flow_run.id)
            if (later := self._begin_if_due(entry.flow_run, asked + lead)) is not None:
                instants[entry.flow_run.id] = later
        self.alarm.renew(asked + lead, instants)
        if far:
            self._early.clear()  # those that there was room for have begun
            self.alarm.replace(instants)
        elif any(run_id not in self._begun for run_id in sought):
            self._seek_again(asked)

    async def _read_pool(self, client: PrefectClient, asked: float) -> None:
        self._reread = asked + _REREAD
        try:
            pool, queues = await client.read_work_pool(self._pool), await client.read_work_queues(self._pool)
        except Exception:
            self._reread = 0.0
            raise
        self._slots.know(pool, queues)
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

    def _begin_if_due(self, flow_run: FlowRun, until: float) -> float | None:
        """Begin a run that waits and is due up to `until`; when one that is due later begins."""
        due = self._turns.begins(flow_run)
        waits = flow_run.state is None or flow_run.state.is_scheduled()  # a pool's answer has those that wait, only
        if due is not None:
            due = max(due, self._not_before.get(flow_run.id, 0.0))
            if flow_run.id in self._early:
                flow_run, due = self._early[flow_run.id], min(due, until)
        if flow_run.id in self._begun or due is None or not waits:
            return None
        if due > until:
            return due
        self.alarm.unset(flow_run.id)
        self._early.pop(flow_run.id, None)
        self._begin(flow_run)
        return None
