"""Many short runs at once: runs a second and CPU seconds a run; beside it the rate of the bare state changes.

The runs are made while the pool is paused; the clock runs from its release until the last one is Completed. The bare
rate and ours take turns; what is told are the medians of the rounds.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from datetime import UTC, datetime
from uuid import UUID

from prefect.client.schemas.actions import WorkPoolUpdate
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterDeploymentId,
    FlowRunFilterState,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import StateType
from prefect.client.schemas.sorting import FlowRunSort
from prefect.states import Completed, Pending, Running

from tests.support import wait_until

from .harness import FLOOR, OURS, PROCESS, Bench, bench, databases, pool_of, used
from .report import report

_AT_ONCE = 16


def main(quick: bool) -> None:
    """Measure the bare rate and both workers, and report. The process worker gets a tenth: it is that much slower."""
    for database in databases():
        asyncio.run(_measure(database, count=30 if quick else 200, rounds=1 if quick else 5))


async def _measure(database: str, count: int, rounds: int) -> None:
    async with bench(database) as running:
        await running.deploy(FLOOR)
        await running.work(OURS)
        taken: dict[str, list[dict[str, float]]] = {OURS: [], FLOOR: []}
        for number in range(rounds):
            taken[FLOOR].append(await _bare(running, count))
            taken[OURS].append(await _side(running, OURS, count, f"{number}."))
        await running.work(PROCESS)
        stock = await _side(running, PROCESS, max(6, count // 10))
    sides = {OURS: _middle(taken[OURS]), PROCESS: stock, FLOOR: _middle(taken[FLOOR])}
    of_floor = [ours["rate"] / floor["rate"] for ours, floor in zip(taken[OURS], taken[FLOOR], strict=True)]
    ratios = {
        PROCESS: sides[OURS]["rate"] / sides[PROCESS]["rate"],
        f"{PROCESS}_cpu": sides[PROCESS]["cpu_per_run"] / sides[OURS]["cpu_per_run"],
        FLOOR: statistics.median(of_floor),
        f"{FLOOR}_min": min(of_floor),
        f"{FLOOR}_max": max(of_floor),
    }
    report("throughput", database=database, runs=count * rounds, sides=sides, ratios=ratios)


def _middle(rounds: list[dict[str, float]]) -> dict[str, float]:
    return {name: statistics.median(each[name] for each in rounds) for name in rounds[0]}


async def _create(running: Bench, side: str, count: int, prefix: str = "") -> list[UUID]:
    made = []
    for number in range(count):
        parameters = {"file": str(running.lines), "key": f"{side}{prefix}{number}"}
        run = await running.client.create_flow_run_from_deployment(running.deployments[side][0], parameters=parameters)
        made.append(run.id)
    return made


async def _side(running: Bench, side: str, count: int, prefix: str = "") -> dict[str, float]:
    client, process = running.client, running.processes[side]
    await client.update_work_pool(pool_of(side), WorkPoolUpdate(is_paused=True))
    await _create(running, side, count, prefix=prefix)
    completed = FlowRunFilter(
        deployment_id=FlowRunFilterDeploymentId(any_=[running.deployments[side][0]]),
        state=FlowRunFilterState(type=FlowRunFilterStateType(any_=[StateType.COMPLETED])),
    )

    done = count + await client.count_flow_runs(flow_run_filter=completed)
    before, server_before = used(process).cpu, used(running.server_process).cpu
    began = datetime.now(UTC)
    await client.update_work_pool(pool_of(side), WorkPoolUpdate(is_paused=False))

    async def all_did() -> bool:
        return await client.count_flow_runs(flow_run_filter=completed) >= done

    await wait_until(all_did, what=f"{count} runs of {side}", timeout=60 + 15 * count, every=0.5)
    newest = FlowRunSort.END_TIME_DESC
    [last] = await client.read_flow_runs(flow_run_filter=completed, sort=newest, limit=1)
    assert last.end_time is not None
    return {
        "rate": count / (last.end_time - began).total_seconds(),
        "cpu_per_run": (used(process).cpu - before) / count,
        "server_cpu_per_run": (used(running.server_process).cpu - server_before) / count,
    }


async def _bare(running: Bench, count: int) -> dict[str, float]:
    """Pending → Running → Completed for `count` runs, 16 at once, with nothing in them."""
    runs = await _create(running, FLOOR, count)
    turn = asyncio.Semaphore(_AT_ONCE)
    server_before = used(running.server_process).cpu

    async def one(run_id: UUID) -> None:
        async with turn:
            await running.client.set_flow_run_state(run_id, Pending())
            await running.client.set_flow_run_state(run_id, Running())
            await running.client.set_flow_run_state(run_id, Completed())

    began = time.perf_counter()
    await asyncio.gather(*(one(run_id) for run_id in runs))
    took = time.perf_counter() - began
    return {"rate": count / took, "server_cpu_per_run": (used(running.server_process).cpu - server_before) / count}
