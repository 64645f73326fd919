"""Whose a run is, and what becomes of the runs of a worker that died.

A claimed run carries its owner's signature: in the message of its Pending and of its Running state, and a little later
in `infrastructure_pid` too, which outlives those.
A worker on the same machine is known to be dead when the lock on its file in `PROACTIVE_HOME/workers` is free: the
kernel frees it with the process, however that ends. A worker elsewhere is taken for dead when neither its runs nor it
have given a sign of life for most of a minute.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
import time
from collections.abc import Container, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterState,
    WorkPoolFilter,
    WorkPoolFilterName,
)
from prefect.client.schemas.objects import FlowRun, StateType, Worker
from prefect.events import Event
from prefect.exceptions import ObjectNotFound

from ..prefect_api.fence import Fence
from ..prefect_api.runs import AWAITING_RETRY
from ..prefect_api.signatures import HELD, IN_MESSAGE, SILENCE, Owner, is_held, owner_in, owner_of
from .retries import RESUMING, leave_to_workers
from .states import ON_THE_WAY, States

_COMPANY = 600.0  # seconds for which a pool that another worker was noticed at counts as shared
_PAGE = 200


class Lock:
    """The file that says that a worker process of this machine lives, locked for as long as it does."""

    def __init__(self, home: Path, owner: Owner, pool: str) -> None:
        self._folder = home / "workers"
        self._path = self._folder / f"{owner.mark}.json"
        self._facts = {"mark": owner.mark, "worker": owner.worker, "pool": pool, "pid": os.getpid()}

    def __enter__(self) -> Lock:
        self._folder.mkdir(parents=True, exist_ok=True)
        self._fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(self._fd, fcntl.LOCK_EX)
        os.write(self._fd, json.dumps(self._facts).encode())
        return self

    def __exit__(self, *_: object) -> None:
        self._path.unlink(missing_ok=True)
        os.close(self._fd)

    @contextlib.contextmanager
    def dead(self, pool: str) -> Iterator[list[str]]:
        """The marks of dead workers of `pool` on this machine; theirs to settle for nobody else while in here.

        Their files are removed on leaving without an error.
        """
        taken: list[tuple[int, Path]] = []
        try:
            for path in self._folder.glob("*.json"):
                if path != self._path and (fd := self._try(path, pool)) is not None:
                    taken.append((fd, path))
            yield [path.stem for _, path in taken]
            for _, path in taken:
                path.unlink(missing_ok=True)
        finally:
            for fd, _ in taken:
                os.close(fd)

    @staticmethod
    def _try(path: Path, pool: str) -> int | None:
        try:
            fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if json.loads(os.read(fd, 4096) or b"{}").get("pool") == pool:
                return fd
        except (BlockingIOError, ValueError):
            pass
        os.close(fd)
        return None

    def knows(self, mark: str) -> bool:
        """Whether that worker is of this machine and this home: then its lock decides, and nothing else."""
        return (self._folder / f"{mark}.json").exists()


class Orphans:
    """Finds and settles the runs of dead workers of one pool."""

    def __init__(self, client: PrefectClient, states: States, lock: Lock, me: Owner, pool: str) -> None:
        self._client = client
        self._states = states
        self._lock = lock
        self._me = me
        self._pool = pool
        self._met_at = float("-inf")  # when another worker of the pool was last noticed
        self._heard: dict[UUID, float] = {}  # runs of other workers, and when they last gave a sign

    @property
    def others(self) -> bool:
        """Whether other workers hold runs."""
        return bool(self._heard)

    @property
    def company(self) -> bool:
        """Whether other workers serve the pool, as far as is known."""
        return time.monotonic() - self._met_at < _COMPANY

    def is_claim_of_another(self, event: Event) -> bool:
        """Whether the event tells that another worker claimed a run."""
        found = IN_MESSAGE.search(event.resource.get("prefect.state-message") or "")
        if event.resource.get("prefect.state-type") != StateType.PENDING:
            return False
        return found is not None and found["mark"] != self._me.mark

    def meet(self) -> None:
        """Another worker was noticed."""
        self._met_at = time.monotonic()

    def sign(self, run_id: UUID) -> None:
        """A run of another worker gave a sign of life."""
        self._heard[run_id] = time.monotonic()

    def forget(self, run_id: UUID) -> None:
        """A run of another worker has ended, or is nobody's."""
        self._heard.pop(run_id, None)

    async def held(self) -> list[FlowRun]:
        """All runs of the pool that some worker has."""
        return await self._runs(HELD)

    async def _runs(self, states: dict[str, Any]) -> list[FlowRun]:
        found: list[FlowRun] = []
        while True:
            page = await self._client.read_flow_runs(
                flow_run_filter=FlowRunFilter(state=FlowRunFilterState.model_validate(states)),
                work_pool_filter=WorkPoolFilter(name=WorkPoolFilterName(any_=[self._pool])),
                limit=_PAGE,
                offset=len(found),
            )
            found += page
            if len(page) < _PAGE:
                return found

    async def _owner(self, run: FlowRun) -> Owner | None:
        """Whose the run is. One that was cancelled right after it began has it in its former states only."""
        if (owner := owner_of(run)) is not None or run.state_type != StateType.CANCELLING:
            return owner
        return owner_in(await self._client.read_flow_run_states(run.id))

    async def survey(self, at_work: Container[UUID]) -> dict[UUID, StateType | None]:
        """Learn of other workers, and which runs they hold now: at the start, and when events may have been missed.

        And of what is this one's by its state, but not `at_work` here. Gives the kinds of states of all runs that are
        held.
        """
        if any(each.name != self._me.worker for each in await self._online()):
            self.meet()
        held = await self.held()
        owners = {run.id: await self._owner(run) for run in held}
        known = {
            run_id
            for run_id, owner in owners.items()
            if owner and (owner.mark != self._me.mark or run_id not in at_work)
        }
        for run_id in self._heard.keys() - known:
            self.forget(run_id)
        for run_id in known:
            self.sign(run_id)
        for run in await self._runs({"name": {"any_": [RESUMING]}}):  # resumed while nobody heard it
            await leave_to_workers(self._client, run)
        return {run.id: run.state_type for run in held}

    async def settle_local(self) -> bool:
        """Settle what dead workers of this machine held; whether there was one. If not, the server is asked nothing."""
        with self._lock.dead(self._pool) as marks:
            if not marks:
                return False
            await asyncio.sleep(ON_THE_WAY)
            for run in await self.held():
                owner = await self._owner(run)
                if owner is None or owner.mark not in marks:
                    continue
                if run.state_type == StateType.PENDING:
                    await self._give_back(run, f"Given back: worker '{owner.worker}' died before it began.")
                else:
                    await self._settle(run, f"Worker '{owner.worker}' died, and the run's process with it.")
            for run in await self._runs({"name": {"any_": [AWAITING_RETRY]}}):
                if (owner := owner_of(run)) is not None and owner.mark in marks:
                    await leave_to_workers(self._client, run)
        return True

    async def settle_silent(self, at_work: Container[UUID]) -> None:
        """Settle what workers of other machines held that are gone without a sign.

        And what this one held and has no more: a request of a process that was killed came after its run was settled.
        """
        now = time.monotonic()
        for run_id in [each for each, at in self._heard.items() if now - at > SILENCE]:
            try:
                run = await self._client.read_flow_run(run_id)
            except ObjectNotFound:
                self.forget(run_id)
                continue
            owner = await self._owner(run)
            if owner is None or run_id in at_work:
                self.forget(run_id)
            elif not is_held(run.state_type, run.state_name):
                if not await self._lives(owner):
                    await leave_to_workers(self._client, run)
                self.forget(run_id)
            elif owner.mark == self._me.mark:
                if run.state_type == StateType.PENDING:
                    await self._give_back(run, "Given back: its claim came when its worker waited for it no more.")
                else:
                    await self._settle(run, "The run's process was killed while it told Prefect of its state.")
                self.forget(run_id)
            elif await self._lives(owner):
                self.sign(run_id)
            else:
                # Pending runs too are not begun again: that its process is dead is only inferred.
                why = f"Worker '{owner.worker}' on {owner.host} has given no sign of life for {SILENCE:g} s."
                await self._settle(run, why)
                self.forget(run_id)

    async def _lives(self, owner: Owner) -> bool:
        """Whether the worker is one of this machine, whose lock decides, or was heard of lately.

        One of our own name but another mark was before us.
        """
        if self._lock.knows(owner.mark):
            return True
        if owner.worker == self._me.worker:
            return False
        return any(worker.name == owner.worker for worker in await self._online())

    async def _online(self) -> list[Worker]:
        """The workers of the pool that were heard of lately."""

        def is_online(worker: Worker) -> bool:
            last = worker.last_heartbeat_time
            return last is not None and (datetime.now(UTC) - last).total_seconds() < SILENCE

        return [each for each in await self._client.read_workers_for_work_pool(self._pool) if is_online(each)]

    async def _give_back(self, run: FlowRun, why: str) -> None:
        """A claimed run that no process has begun is to be claimed anew, unless it ended before that claim."""
        if not await self._states.undo_late_claim(run):
            await self._states.give_back(run, why, Fence(run))

    async def _settle(self, run: FlowRun, why: str) -> None:
        if run.state_type == StateType.CANCELLING:
            await self._states.cancelled(run.id, why, Fence(run))
        else:
            await self._states.crashed(run.id, why, Fence(run))
