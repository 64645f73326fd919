"""Many short runs at once: runs a second and CPU seconds a run; beside it the rate of the bare state changes.

The runs are made while the pool is paused; the clock runs from its release until the last one is Completed. The bare
rate and ours take turns, a half each time.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from prefect.client.schemas.actions import WorkPoolUpdate
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterDeploymentId,
    FlowRunFilterState,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import State, StateType
from prefect.client.schemas.sorting import FlowRunSort
from prefect.states import Completed, Pending, Running, Scheduled

from tests.support import wait_until

from .harness import FLOOR, OURS, PROCESS, Bench, bench, databases, pool_of, used
from .report import report

_AT_ONCE = 16


def main(quick: bool) -> None:
    """Measure the bare rate and both workers, and report. The process worker gets a tenth: it is that much slower."""
    for database in databases():
        asyncio.run(_measure(database, 30 if quick else 200))


async def _measure(database: str, count: int) -> None:
    async with bench(database) as running:
        await running.deploy(FLOOR)
        await running.work(OURS)
        halves: dict[str, list[dict[str, float]]] = {OURS: [], FLOOR: []}
        for half in range(2):
            halves[FLOOR].append(await _bare(running, count // 2))
            halves[OURS].append(await _side(running, OURS, count // 2, f"{half}."))
        await running.work(PROCESS)
        stock = await _side(running, PROCESS, max(6, count // 10))
    sides = {OURS: _mean(halves[OURS]), PROCESS: stock, FLOOR: _mean(halves[FLOOR])}
    ratios = {
        PROCESS: sides[OURS]["rate"] / sides[PROCESS]["rate"],
        f"{PROCESS}_cpu": sides[PROCESS]["cpu_per_run"] / sides[OURS]["cpu_per_run"],
        FLOOR: sides[OURS]["rate"] / sides[FLOOR]["rate"],
    }
    report("throughput", database=database, runs=count, sides=sides, ratios=ratios)


def _mean(halves: list[dict[str, float]]) -> dict[str, float]:
    """Of rates the harmonic mean, which is that of all runs together; of costs a run the common one."""
    return {
        name: statistics.harmonic_mean(values) if name == "rate" else statistics.fmean(values)
        for name in halves[0]
        for values in [[half[name] for half in halves]]
    }


async def _create(
    running: Bench, side: str, count: int, state: State[Any] | None = None, prefix: str = ""
) -> list[UUID]:
    made = []
    for number in range(count):
        parameters = {"file": str(running.lines), "key": f"{side}{prefix}{number}"}
        run = await running.client.create_flow_run_from_deployment(
            running.deployments[side][0], parameters=parameters, state=state
        )
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
    far: State[Any] = Scheduled(scheduled_time=datetime(2090, 1, 1, tzinfo=UTC))
    runs = await _create(running, FLOOR, count, state=far)
    turn = asyncio.Semaphore(_AT_ONCE)
    server_before = used(running.server_process).cpu

    async def one(run_id: UUID) -> None:
        async with turn:
            await running.client.set_flow_run_state(run_id, Pending())
            await running.client.set_flow_run_state(run_id, Running(), force=True)
            await running.client.set_flow_run_state(run_id, Completed())

    began = time.perf_counter()
    await asyncio.gather(*(one(run_id) for run_id in runs))
    took = time.perf_counter() - began
    return {"rate": count / took, "server_cpu_per_run": (used(running.server_process).cpu - server_before) / count}
