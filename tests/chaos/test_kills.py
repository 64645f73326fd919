"""Runs and workers killed at each step of a run's life: every run is accounted for."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from uuid import UUID

import httpx
import psutil
import pytest
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterState,
    FlowRunFilterStateType,
    WorkPoolFilter,
    WorkPoolFilterName,
)
from prefect.client.schemas.objects import TERMINAL_STATES, FlowRun, State
from rich.console import Console
from rich.table import Table

from ..support import wait_until
from ..worker.conftest import Project, project

__all__ = ["project"]

_FLOW = """
import os, random, signal, time
from prefect import flow


def note(file, word):
    with open(file, "a") as out:
        out.write(f"{word} {os.getpid()} {time.time()}\\n")


def doom(step, within):
    '''Have this process killed at a random moment from now on, if it lives that long.'''
    me, after = os.getpid(), random.SystemRandom().uniform(0, within)
    if os.fork() == 0:
        time.sleep(after)
        os.kill(me, signal.SIGKILL)
        os._exit(0)


def load(step):
    '''A pull step: the run is claimed, its process has its order, its state is Pending.'''
    if step == "loading":
        doom(step, 0.15)


@flow
def work(file: str, key: str, seconds: float, step: str):
    note(file, f"began:{key}")
    if step == "action":
        doom(step, seconds)
    time.sleep(seconds)
    note(file, f"ended:{key}")
    if step == "ending":
        doom(step, 0.08)
"""

# When a run's process is killed, if not by chance before: as soon as it has its order, while it loads the flow and asks
# for Running, in the flow's body, between the body's last line and the end of its process; or not at all.
_STEPS = ("claimed", "loading", "action", "ending", "spared")
_GRACE = {"PROACTIVE_WORKER_GRACE": "5"}


@dataclass
class Fire:
    """What is killed from outside, and how often it was."""

    project: Project
    chance: random.Random
    children: int = 0
    workers: int = 0
    _seen: set[int] = field(default_factory=set)

    def _processes(self) -> list[psutil.Process]:
        """The forked processes of the project's workers, idle or running."""
        found = []
        for worker in self.project.workers:
            with contextlib.suppress(psutil.Error):
                for each in psutil.Process(worker.pid).children(recursive=True):
                    with contextlib.suppress(psutil.Error, ProcessLookupError):
                        if os.getpgid(each.pid) == each.pid:
                            found.append(each)
        return found

    async def on_claimed(self) -> None:
        """Kill processes as soon as they have an order, which is when they start their threads: each fifth."""
        while True:
            for process in self._processes():
                with contextlib.suppress(psutil.Error):
                    if process.pid not in self._seen and process.num_threads() > 1:
                        self._seen.add(process.pid)
                        if self.chance.random() < 1 / len(_STEPS):
                            process.kill()
                            self.children += 1
            await asyncio.sleep(0.02)

    async def on_idle(self) -> None:
        """Kill a spare, or a run in whatever it does, now and then."""
        while True:
            await asyncio.sleep(self.chance.uniform(1, 5))
            if candidates := self._processes():
                with contextlib.suppress(psutil.Error):
                    self.chance.choice(candidates).kill()
                    self.children += 1

    async def on_worker(self, seconds: float) -> None:
        """Kill the worker again and again, and start the next one at once."""
        while True:
            await asyncio.sleep(self.chance.uniform(seconds / 2, seconds))
            await self.kill_worker()
            await self.project.worker(**_GRACE)

    async def kill_worker(self) -> None:
        """Kill the worker that was started last."""
        self.project.workers[-1].kill()
        await asyncio.to_thread(self.project.workers[-1].wait, 30)
        self.workers += 1

    @asynccontextmanager
    async def lit(self, worker_every: float | None) -> AsyncIterator[None]:
        """Kill all along, until left."""
        work = [self.on_claimed(), self.on_idle(), *([self.on_worker(worker_every)] if worker_every else [])]
        tasks = [asyncio.create_task(each) for each in work]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            for task in tasks:
                with contextlib.suppress(asyncio.CancelledError):
                    await task


_COMPLETED, _GIVEN_BACK = "Completed", "given back, then Completed"
_FATES = (_COMPLETED, _GIVEN_BACK, "before Running", "before the action", "in the action", "before the final state")


def _fate(history: list[State], began: bool, ended: bool) -> str:
    """What became of a run: Completed, or where in its life it Crashed."""
    if any(state.is_completed() for state in history):
        return _GIVEN_BACK if any("Given back" in (state.message or "") for state in history) else _COMPLETED
    if not any(state.is_running() for state in history):
        return "before Running"
    return "before the final state" if ended else "in the action" if began else "before the action"


async def _account(project: Project, runs: dict[UUID, str], fire: Fire) -> None:
    """Hold every run against its history and its lines, and print what became of them."""
    fates: dict[str, Counter[str]] = {row: Counter() for row in (*_STEPS, "its worker")}
    begun, done = (Counter(line.word for line in project.lines(f"{word}:")) for word in ("began", "ended"))
    for number, (run_id, step) in enumerate(runs.items()):
        history = await project.client.read_flow_run_states(run_id)
        told = "\n".join(f"{state.timestamp} {state.name} {state.message}" for state in history)
        final = max(history, key=lambda state: (state.is_final(), state.timestamp))
        message = final.message or ""
        ends = [(state.name, state.message) for state in history if state.is_final()]
        assert set(ends) == {(final.name, final.message)}, told
        assert len(ends) == 1 or sum(state.is_pending() for state in history) > 1, told  # a late claim, undone
        began, ended = begun[f"began:n{number}."], done[f"ended:n{number}."]
        assert began <= 1, f"the body of n{number} ran {began} times: {told}"
        if final.is_completed():
            assert ended == 1, told
        else:
            assert final.is_crashed(), told
            assert "SIGKILL" in message or "Worker" in message, told
        fates["its worker" if "Worker" in message else step][_fate(history, bool(began), bool(ended))] += 1
    title = f"{len(runs)} runs; killed from outside: {fire.children} processes, {fire.workers} workers"
    table = Table("killed", *_FATES, title=title)
    for row, counts in fates.items():
        table.add_row(row, *(str(counts[fate]) for fate in _FATES))
    table.add_row("all", *(str(sum(counts[fate] for counts in fates.values())) for fate in _FATES))
    Console(width=150).print(table)


async def _fire(project: Project, count: int, *, workers: int, worker_every: float | None, seed: int) -> None:
    """Have `count` runs run while processes are killed, and account for each of them."""
    chance = random.Random(seed)
    (project.folder / "chaos.py").write_text(_FLOW)
    here = {"prefect.deployments.steps.set_working_directory": {"directory": str(project.folder)}}
    deployments = {}
    for step in _STEPS:
        steps = [here, {"chaos.load": {"step": step}}]
        deployments[step] = await project.deploy("work", "chaos.py:work", pull_steps=steps)
    await asyncio.gather(*(project.worker(**_GRACE) for _ in range(workers)))
    fire, runs = Fire(project, chance), {}
    async with fire.lit(worker_every):
        for number in range(count):
            step = _STEPS[number % len(_STEPS)]
            seconds = chance.uniform(0, 0.8)
            given = {"file": str(project.file), "key": f"n{number}.", "seconds": seconds, "step": step}
            made = await project.client.create_flow_run_from_deployment(deployments[step], parameters=given)
            runs[made.id] = step
            if workers > 1 and number == count // 2:
                await fire.kill_worker()
        await _all_ended(project, runs)
    await _account(project, runs, fire)
    await _nothing_left(project)


async def _all_ended(project: Project, runs: dict[UUID, str]) -> None:
    """Wait until no run is left open; who is, is told."""
    pool = WorkPoolFilter(name=WorkPoolFilterName(any_=[project.pool]))
    still = FlowRunFilterState(type=FlowRunFilterStateType(not_any_=list(TERMINAL_STATES)))
    open_runs: list[FlowRun] = []

    async def all_ended() -> bool:
        nonlocal open_runs
        with contextlib.suppress(httpx.HTTPError):  # a busy database
            open_runs = await project.client.read_flow_runs(
                flow_run_filter=FlowRunFilter(state=still), work_pool_filter=pool
            )
            return not open_runs
        return False

    try:
        await wait_until(all_ended, what=f"{len(runs)} runs ended", timeout=120 + len(runs), every=1)
    except AssertionError as late:
        told = [f"{run.id} {runs[run.id]}: {run.state_name}, {run.state and run.state.message}" for run in open_runs]
        raise AssertionError("\n".join([str(late), *told])) from None


async def _nothing_left(project: Project) -> None:
    for worker in project.workers:
        if worker.poll() is None:
            worker.send_signal(signal.SIGTERM)
    for worker in project.workers:
        await asyncio.to_thread(worker.wait, 60)
    await wait_until(lambda: not project.processes(), what="no process is left")


async def test_killed_runs_end_exactly_once(project: Project) -> None:
    """Runs and their worker killed at any step: each ends in one terminal state, no body runs twice."""
    await _fire(project, 25, workers=1, worker_every=8, seed=1)


@pytest.mark.slow
async def test_a_killed_worker_beside_another_loses_nothing(project: Project) -> None:
    """Two workers, one killed in the middle, runs killed all along: the same account."""
    await _fire(project, 25, workers=2, worker_every=None, seed=2)


_long = pytest.mark.skipif(os.environ.get("PROACTIVE_TEST_CHAOS") != "long", reason="the long form: `make chaos`")


@_long
@pytest.mark.timeout(3600)
async def test_five_hundred_runs_of_workers_that_are_killed(project: Project) -> None:
    """The long form: 500 runs, accounted for one by one; a worker that is killed is followed by the next."""
    await _fire(project, 500, workers=1, worker_every=30, seed=3)


@_long
@pytest.mark.timeout(3600)
async def test_five_hundred_runs_of_two_workers_of_which_one_is_killed(project: Project) -> None:
    """The long form of two workers: who is left settles the runs of the killed one, and runs the rest."""
    await _fire(project, 500, workers=2, worker_every=None, seed=4)
