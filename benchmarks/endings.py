"""How soon a run's end is told: cancelled, its process killed, its worker killed. Ours beside the process worker.

A run is cancelled as Prefect's UI does it, by its API, and by Prefect's command. The seconds are those from the
request, or the kill, to the run's last state: Cancelled, or Crashed; of the command, from the state that it set. A
killed worker is started again at once, and its successor has to tell; stock Prefect has nothing that would.
"""

from __future__ import annotations

import asyncio
import os
import signal
import statistics
import sys
from datetime import UTC, datetime
from uuid import UUID

from prefect.client.schemas.objects import StateType
from prefect.states import Cancelling

from tests.support import wait_until

from .harness import OURS, PROCESS, Bench, bench, databases
from .report import report, summarise

_STOCK_EACH = 4  # stock takes part in each fourth round: it is that slow


def main(quick: bool) -> None:
    """Measure on each database, and report."""
    for database in databases():
        asyncio.run(_measure(database, 4 if quick else 12))


async def _measure(database: str, rounds: int) -> None:
    times: dict[str, list[float]] = {}
    async with bench(database) as running:
        for side in (OURS, PROCESS):
            await running.work(side, flow="stay")
        for number in range(-1, rounds):
            for side in (OURS, PROCESS) if number % _STOCK_EACH in (0, 3) else (OURS,):
                for what in (_cancel, _kill):
                    took = await what(running, side, f"{side}{what.__name__}{number}")
                    if number >= 0:  # the first ones of all import what later ones share
                        times.setdefault(f"{side}{what.__name__}", []).append(took)
        for number in range(max(2, rounds // 4)):
            times.setdefault(f"{OURS}_cancel_by_command", []).append(await _command(running, f"command{number}"))
            times.setdefault(f"{OURS}_worker_killed", []).append(await _kill_worker(running, f"worker{number}"))
    middle = {name: statistics.median(values) for name, values in times.items()}
    report(
        "endings",
        database=database,
        runs=rounds,
        sides={name: summarise(values, runs=len(values)) for name, values in times.items()},
        ratios={what: middle[f"{PROCESS}{what}"] / middle[f"{OURS}{what}"] for what in ("_cancel", "_kill")},
    )


async def _begin(running: Bench, side: str, key: str) -> tuple[UUID, int]:
    """A run at work, and its process."""
    [deployment] = running.deployments[side]
    run = await running.client.create_flow_run_from_deployment(
        deployment, parameters={"file": str(running.lines), "key": key}
    )

    def pids() -> list[int]:
        return [int(word.partition("|")[2]) for word in running.seen() if word.startswith(f"{key}|")]

    [pid] = await wait_until(pids, what=f"the first line of {key}", timeout=180, every=0.05)
    return run.id, pid


async def _told(running: Bench, run_id: UUID, kind: StateType, since: datetime) -> float:
    await running.ended(run_id)
    state = (await running.client.read_flow_run(run_id)).state
    assert state is not None
    assert state.type == kind, state
    return (state.timestamp - since).total_seconds()


async def _cancel(running: Bench, side: str, key: str) -> float:
    run_id, _ = await _begin(running, side, key)
    since = datetime.now(UTC)
    await running.client.set_flow_run_state(run_id, Cancelling())
    return await _told(running, run_id, StateType.CANCELLED, since)


async def _command(running: Bench, key: str) -> float:
    run_id, _ = await _begin(running, OURS, key)
    command = [sys.executable, "-m", "prefect", "flow-run", "cancel", str(run_id)]
    process = await asyncio.create_subprocess_exec(*command, env=running.server.env, stdout=asyncio.subprocess.DEVNULL)
    assert await process.wait() == 0
    await running.ended(run_id)
    asked, told = (await running.client.read_flow_run_states(run_id))[-2:]
    assert (asked.type, told.type) == (StateType.CANCELLING, StateType.CANCELLED), (asked, told)
    return (told.timestamp - asked.timestamp).total_seconds()


async def _kill(running: Bench, side: str, key: str) -> float:
    run_id, pid = await _begin(running, side, key)
    since = datetime.now(UTC)
    os.kill(pid, signal.SIGKILL)
    return await _told(running, run_id, StateType.CRASHED, since)


async def _kill_worker(running: Bench, key: str) -> float:
    run_id, _ = await _begin(running, OURS, key)
    since = datetime.now(UTC)
    process = running.processes.pop(OURS)
    os.kill(process.pid, signal.SIGKILL)
    process.wait(30)
    running.start_worker(OURS)
    return await _told(running, run_id, StateType.CRASHED, since)
