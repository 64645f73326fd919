"""The Prefect worker of type `proactive`: starts runs on the instant, in processes that were ready before."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import socket
import time
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import AsyncExitStack
from typing import Any
from uuid import UUID, uuid4

import anyio
import anyio.abc
import httpx
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.client.schemas.responses import DeploymentResponse
from prefect.events import Event
from prefect.logging.loggers import get_worker_logger
from prefect.workers.base import BaseWorker

from ..errors import InputError
from ..firing.pregate import is_settled
from ..prefect_api import PrefectApi
from ..prefect_api.signatures import Owner
from ..settings import Settings
from .attempt import AGAIN, Attempt
from .generation import Spare
from .job import ProactiveJobConfiguration, ProactiveVariables, ProactiveWorkerResult
from .jobs import Jobs, environment
from .liveness import Liveness
from .looks import Looks
from .owners import Lock, Orphans
from .retries import RESUMING
from .seam import ControlChannel, give_back_memory, heed_interrupt, serve_health
from .shares import Shares
from .slots import Slots
from .spares import Spares
from .states import States, is_passing
from .wake import Ears, asks_to_stop, freed_by, is_only_polled

_AT_ONCE = 6  # runs between claim and Running at one time: the embedded database answers no faster to more
_TIDY_EVERY = 4.0  # seconds between two looks whether there is memory to give back
_LONG_START = 5.0  # seconds after which a run that is not Running yet (it fetches its code) holds up no other


class ProactiveWorker(BaseWorker[ProactiveJobConfiguration, ProactiveVariables, ProactiveWorkerResult]):
    """Prefect's worker protocol, woken by events and timers, with runs in forked spare processes."""

    type = "proactive"
    job_configuration = ProactiveJobConfiguration
    job_configuration_variables = ProactiveVariables

    _display_name = "Proactive"
    _description = "Starts runs of any flow on the instant on this machine: woken by events, in processes forked ahead."

    def __init__(self, work_pool_name: str, **options: Any) -> None:
        super().__init__(work_pool_name, **options)
        self._settings = Settings()
        queues: list[str] = sorted(options.get("work_queues") or [])
        self._slots = Slots(options.get("limit"), self._settings.worker_owner_limit, chosen=bool(queues))
        self._log = get_worker_logger(self)
        self._me = Owner(worker=self.name, host=socket.gethostname(), mark=uuid4().hex[:12])
        self._lock = Lock(self._settings.home, self._me, work_pool_name)
        self._pool_name = work_pool_name
        self._attempts: dict[UUID, Attempt] = {}
        self._looks = Looks(
            work_pool_name, queues, self._slots, begin=self._begin, begun=self._attempts, logger=self._log
        )
        self._ears = Ears(heard=self._hear, reconnected=self._reconnected, logger=self._log)
        self._control, self._stopping, self._untidy = ControlChannel(), False, False
        self._tasks: set[asyncio.Task[Any]] = set()
        self._starting = asyncio.Semaphore(_AT_ONCE)
        self._taken: deque[UUID] = deque(maxlen=1000)  # states of runs that were begun: their events are no news

    async def start(
        self,
        run_once: bool = False,
        with_healthcheck: bool = False,
        printer: Callable[..., None] = print,
    ) -> None:
        """Run until cancelled (Prefect's CLI does that on SIGINT and SIGTERM), then let runs finish for their grace.

        `run_once`: run what is due now, wait for it, return.
        """
        heed_interrupt()
        async with AsyncExitStack() as stack:
            if with_healthcheck:
                stack.enter_context(serve_health(self))
            await stack.enter_async_context(self)
            await stack.enter_async_context(self._control)
            self._lock.__enter__()
            self._api = PrefectApi(self.client, self._settings)
            self._jobs = Jobs(self.client)
            self._states = States(self.client, signed=self._me.claim(), logger=self._log)
            orphans = Orphans(self.client, self._states, self._lock, self._me, self._pool_name)
            self._shares = Shares(self._settings.worker_owner_limit, self._states, orphans.held)
            self._liveness = Liveness(orphans, self._log)
            self._spares = Spares(
                size=self._settings.worker_spares,
                preload=[name.strip() for name in self._settings.worker_preload.split(",") if name.strip()],
                env=await environment(self.client, self._me.mark),
                logger=self._log,
            )
            try:
                await self._spares.start()
                # What is here now stays. Else Python looks through it all (130,000 objects, 56 ms) each time it looks
                # for what runs have left behind, and therefore does so seldom.
                gc.collect()
                gc.freeze()
                printer(f"Worker {self.name!r} started!")
                if run_once:
                    await self._looks.look(self.client, 0.0, far=False)
                    await self._until_idle()
                else:
                    await self._serve()
            finally:
                with anyio.CancelScope(shield=True):
                    await self._drain()
                    await self._spares.end()
                if not self._attempts:
                    self._lock.__exit__()  # else the file stays, for the next worker to settle what is left
        printer(f"Worker {self.name!r} stopped!")

    async def _serve(self) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(self._keep_in_touch())
            group.create_task(self._ears.follow(self._pool_id))
            group.create_task(self._looks.watch(self.client, self._ears))
            group.create_task(self._spares.watch())
            group.create_task(self._states.keep_telling(self._starting.locked))
            group.create_task(self._liveness.watch(self._ears, self._attempts))
            group.create_task(self._tidy())

    async def _tidy(self) -> None:
        """Give the memory that runs have left behind back to the system, while there are none."""
        while True:
            await asyncio.sleep(_TIDY_EVERY)
            if self._untidy and not self._attempts:
                self._untidy = False
                give_back_memory()

    async def _keep_in_touch(self) -> None:
        """Prefect's own signs of life of a worker, and news of its work pool."""
        while True:
            await asyncio.sleep(self.heartbeat_interval_seconds if self._knows_pool() else 1)
            try:
                await self.sync_with_backend()
            except httpx.HTTPError as error:
                self._log.warning("The Prefect API did not answer: %s", error or type(error).__name__)

    def _pool_id(self) -> UUID | None:
        return self._work_pool.id if self._work_pool else None

    def _knows_pool(self) -> bool:
        """False where the server was away when we started: no run can be claimed without the pool's template."""
        return self._work_pool is not None

    def is_worker_still_polling(self, query_interval_seconds: float) -> bool:
        """For the health check: whether the worker has looked for runs lately."""
        return self._looks.is_regular(query_interval_seconds)

    def _reconnected(self) -> None:
        self._liveness.resurvey()
        self._looks.seek_all()

    def _hear(self, event: Event) -> None:
        kind = event.resource.get("prefect.state-type")
        if not event.resource.id.startswith("prefect.flow-run."):  # a deployment, a queue, or the pool
            if not is_only_polled(event):
                self._looks.heed_change()
            return
        run_id = UUID(event.resource.id.removeprefix("prefect.flow-run."))
        attempt = self._attempts.get(run_id)
        self._liveness.notice(event, attempt)
        if attempt is None:
            self._liveness.hear(run_id, event)
            if kind is not None and kind != StateType.SCHEDULED:
                self._slots.forget(run_id)
            if (deployment := freed_by(event)) is not None:
                self._use_free_slot(deployment)
        if attempt is not None:
            self._heed(attempt, kind, event)
        elif kind == StateType.SCHEDULED and event.id not in self._taken:
            if event.resource.get("prefect.state-name") == RESUMING:
                self._spawn(self._states.leave_to_workers(run_id))
            self._looks.seek(run_id)

    def _heed(self, attempt: Attempt, kind: str | None, event: Event) -> None:
        """Something happened to a run that is here. A new connection tells again what happened in the last minute."""
        if kind is None or event.id in self._taken or attempt.is_news_of_before(event):
            return
        attempt.waits = kind == StateType.SCHEDULED
        if asks_to_stop(kind, event.resource.get("prefect.state-name")):
            self._spawn(attempt.cancel())
        elif kind == StateType.PAUSED:
            self._spawn(attempt.catch_up())

    def _begin(self, flow_run: FlowRun) -> None:
        """Begin a run unless the worker is stopping, or a limit of its own is reached."""
        at_work = [each.flow_run for each in self._attempts.values()]
        if self._stopping or not self._knows_pool() or not self._slots.admits(flow_run, at_work):
            return
        self._slots.forget(flow_run.id)
        attempt = Attempt(flow_run, states=self._states, control=self._control, spares=self._spares)
        self._attempts[flow_run.id], self._untidy = attempt, True
        if flow_run.state is not None:
            self._taken.append(flow_run.state.id)  # an event has its state's id
        self._spawn(self._work(attempt))

    async def _work(self, attempt: Attempt) -> None:
        flow_run = attempt.flow_run
        try:
            await self._claim_and_run(attempt)
        except Exception as error:
            self._log.warning("Run %s was not started", flow_run.id, exc_info=not is_passing(error))
            await attempt.drop()
            if await attempt.put_off(error):
                self._looks.put_off(flow_run.id, time.time() + AGAIN)
            else:
                attempt.waits = True
        finally:
            del self._attempts[flow_run.id]
            if attempt.claimed or attempt.lost:
                self._use_free_slot(flow_run.deployment_id)
            elif self._slots.is_news():
                self._looks.alarm.ring()
            if attempt.waits:  # it is scheduled again, and the event of that was heard while it was here
                self._looks.seek(flow_run.id)

    def _use_free_slot(self, deployment_id: UUID | None) -> None:
        """A run ended: one that waits for its deployment's limit goes next, or for that of the pool, or of a queue."""
        first = self._slots.next_of(deployment_id)
        if first is not None and first.id not in self._attempts and not self._stopping:
            if self._slots.is_open and not self._looks.paused:
                self._begin(first)
            else:
                self._looks.hasten(first)
        if self._slots.is_news():
            self._looks.alarm.ring()
        if self._slots.limited:
            self._looks.look_far()

    def _is_alone(self, attempt: Attempt) -> bool:
        """Whether no other run of its deployment is known to be at work, here or at another worker."""
        same = attempt.flow_run.deployment_id
        rivals = [one for one in self._attempts.values() if one.flow_run.deployment_id == same]
        return rivals == [attempt] and not self._liveness.others

    async def _claim_and_run(self, attempt: Attempt) -> None:
        flow_run = attempt.flow_run
        async with self._starting:
            alone = self._is_alone(attempt)
            if self._stopping or await is_settled(self._api, flow_run, alone=alone) or attempt.lost:
                return
            reading = asyncio.ensure_future(self._jobs.deployment(flow_run))
            company = self._liveness.company
            if alone and self._slots.unlimited and not company:  # the claim will hardly be lost
                attempt.ahead = asyncio.ensure_future(self._hand_over(attempt, reading))
            claim = await self._shares.claim(flow_run, contested=company)
            if not claim.won:
                reading.cancel()
                await attempt.drop()
                if claim.again is not None:
                    self._looks.put_off(flow_run.id, claim.again)
                    self._slots.wait(flow_run)
                attempt.lost, attempt.waits = claim.again is None, False
                return
            attempt.claimed = True
            if not await (attempt.ahead or self._hand_over(attempt, reading)):
                await self._states.cancelled(flow_run.id, "Its deployment no longer exists.")
                return
            work = asyncio.create_task(attempt.follow())
            if attempt.start_at <= time.time():
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(attempt.begun.wait(), _LONG_START)
        await work

    async def _hand_over(self, attempt: Attempt, reading: Awaitable[DeploymentResponse | None]) -> bool:
        """Give the run to a process that loads its flow. Gives whether its deployment exists."""
        if (deployment := await reading) is None:
            return False
        await self._prepare(attempt, await self._jobs.configure(self, attempt.flow_run, deployment), deployment)
        return True

    async def _prepare(
        self, attempt: Attempt, configuration: ProactiveJobConfiguration, deployment: DeploymentResponse
    ) -> Spare:
        known = await self._jobs.known(attempt.flow_run, deployment)
        attempt.spare = spare = await self._spares.suited(configuration)
        await spare.forked()
        attempt.hand_over(spare, configuration, known, owner=self._me)
        return spare

    async def run(
        self,
        flow_run: FlowRun,
        configuration: ProactiveJobConfiguration,
        task_status: anyio.abc.TaskStatus[int] | None = None,
    ) -> ProactiveWorkerResult:
        """Prefect's way to run one claimed run on this worker: in a spare process, to its end."""
        deployment = await self._jobs.deployment(flow_run)
        if deployment is None:
            raise InputError("only runs of deployments can be run by a worker of type proactive")
        attempt = Attempt(flow_run, states=self._states, control=self._control, spares=self._spares)
        attempt.claimed, self._attempts[flow_run.id] = True, attempt
        try:
            spare = await self._prepare(attempt, configuration, deployment)
            if task_status is not None:
                task_status.started(spare.pid)
            return await attempt.follow()
        finally:
            await attempt.drop()
            del self._attempts[flow_run.id]

    def _spawn(self, work: Coroutine[Any, Any, Any]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _until_idle(self) -> None:
        while self._attempts:
            await asyncio.wait(list(self._tasks), return_when=asyncio.FIRST_COMPLETED)

    async def _drain(self) -> None:
        """Claim nothing more, let runs finish for the grace, then end what is left so that its state is told."""
        self._stopping = True
        if self._attempts:
            listening = asyncio.create_task(self._ears.follow(self._pool_id))  # they may be cancelled meanwhile
            await self._let_finish(self._settings.worker_grace)
            listening.cancel()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._states.tell_rest(lambda: False), 2)

    async def _let_finish(self, grace: float) -> None:
        self._log.info("Stopping: %d runs have %g s to finish", len(self._attempts), grace)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._until_idle(), grace)
        for attempt in self._attempts.values():
            attempt.kill("crashed", f"The worker was stopped; the run did not finish within its grace of {grace:g} s.")
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._until_idle(), 10)
