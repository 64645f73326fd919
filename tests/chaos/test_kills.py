"""Runs and workers killed at random moments: every run is accounted for."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
from collections import Counter
from pathlib import Path

import psutil
import pytest

from ..support import wait_until
from ..worker.conftest import Project, project

__all__ = ["project"]

_FLOW = """
import os, time
from prefect import flow


@flow
def work(file: str, key: str, seconds: float):
    with open(file, "a") as out:
        out.write(f"{key} {os.getpid()} {time.time()}\\n")
    time.sleep(seconds)
"""


def _runs(project: Project) -> list[psutil.Process]:
    """The forked processes of the project's workers, idle or running."""
    found = []
    for process in project.processes():
        with contextlib.suppress(psutil.Error):
            if "proactive_prefect.worker.forkserver" in process.cmdline() and os.getpgid(process.pid) == process.pid:
                found.append(process)
    return found


async def _kill_children(project: Project, chance: random.Random, stop: asyncio.Event) -> int:
    """Kill a random run or spare at random moments until told to stop; gives how many."""
    killed = 0
    while not stop.is_set():
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), chance.uniform(0.2, 1.5))
        if candidates := _runs(project):
            with contextlib.suppress(psutil.Error):
                chance.choice(candidates).send_signal(signal.SIGKILL)
                killed += 1
    return killed


async def _account(project: Project, count: int, kill_worker: bool, seed: int) -> Counter[str]:
    """Fire `count` runs while processes are killed; gives how often each final state was reached."""
    chance = random.Random(seed)
    (Path(project.folder) / "chaos.py").write_text(_FLOW)
    await project.deploy("work", "chaos.py:work")
    await project.worker(PROACTIVE_WORKER_GRACE="5")
    if kill_worker:
        await project.worker(PROACTIVE_WORKER_GRACE="5")
    stop = asyncio.Event()
    killing = asyncio.create_task(_kill_children(project, chance, stop))
    runs = []
    for number in range(count):
        runs.append(await project.start("work", key=f"n{number}.", seconds=chance.uniform(0, 1)))
        if kill_worker and number == count // 2:
            project.workers[0].send_signal(signal.SIGKILL)

    ended = {"state": {"type": {"any_": ["COMPLETED", "FAILED", "CRASHED", "CANCELLED"]}}}
    mine = {"id": {"any_": [str(run.id) for run in runs]}, **ended}

    async def all_ended() -> bool:
        answer = await project.client.request("POST", "/flow_runs/count", json={"flow_runs": mine})
        return bool(answer.json() == count)

    try:
        await wait_until(all_ended, what=f"{count} runs ended", timeout=240 + 4 * count, every=2)
    finally:
        stop.set()
        killed = await killing
    states: Counter[str] = Counter()
    for run in runs:
        history = await project.client.read_flow_run_states(run.id)
        finals = [state.name for state in history if state.is_final()]
        assert len(finals) == 1, f"{run.name}: {[state.name for state in history]}"
        states[str(finals[0])] += 1
    starts = Counter(line.word for line in project.lines())
    assert [key for key, times in starts.items() if times > 1] == []
    completed = states["Completed"]
    assert completed <= len(starts)
    print(f"\n{count} runs, {killed} kills, worker killed: {kill_worker}: {dict(states)}, {len(starts)} bodies begun")
    return states


async def _nothing_left(project: Project) -> None:
    for worker in project.workers:
        if worker.poll() is None:
            worker.send_signal(signal.SIGTERM)
    for worker in project.workers:
        await asyncio.to_thread(worker.wait, 60)
    await wait_until(lambda: not project.processes(), what="no process is left")


@pytest.mark.slow
@pytest.mark.timeout(900)
async def test_killed_runs_end_exactly_once(project: Project) -> None:
    """Killing runs at any step: each ends in one terminal state, no body runs twice, no process is left."""
    states = await _account(project, 25, kill_worker=False, seed=1)
    assert set(states) <= {"Completed", "Crashed"}
    await _nothing_left(project)


async def test_a_killed_worker_beside_another_loses_nothing(project: Project) -> None:
    """Two workers, one killed in the middle, runs killed all along: the same account."""
    states = await _account(project, 25, kill_worker=True, seed=2)
    assert set(states) <= {"Completed", "Crashed"}
    await _nothing_left(project)


@pytest.mark.skipif(os.environ.get("PROACTIVE_TEST_CHAOS") != "long", reason="the long form: `make chaos`")
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("kill_worker", [False, True])
async def test_five_hundred_runs_under_fire(project: Project, kill_worker: bool) -> None:
    """The long form: 500 runs, accounted for one by one."""
    await _account(project, 500, kill_worker=kill_worker, seed=3)
    await _nothing_left(project)
