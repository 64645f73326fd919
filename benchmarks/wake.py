"""Run now → first line of the flow: ours, `serve()`, the process worker; and the bare API calls that any run needs."""

from __future__ import annotations

import asyncio
import statistics
import time

from tests.support import wait_until

from .harness import FLOOR, OURS, PROCESS, SERVE, Bench, bench, databases
from .report import report, summarise

_STOCK_EACH = 6  # stock takes part in each sixth round: it is that slow


def main(quick: bool) -> None:
    """Measure all sides in turn, and report."""
    for database in databases():
        asyncio.run(_measure(database, 7 if quick else 30))


async def _measure(database: str, rounds: int) -> None:
    times: dict[str, list[float]] = {side: [] for side in (OURS, SERVE, PROCESS, FLOOR)}
    async with bench(database) as running:
        await running.deploy(FLOOR)
        await running.work(OURS)
        await running.work(PROCESS)
        await running.serve()
        await _wake(running, OURS, "warm")  # the first one of all imports what every later one shares
        for number in range(rounds):
            for side in (OURS, SERVE, PROCESS) if number % _STOCK_EACH == 0 else (OURS,):
                times[side].append(await _wake(running, side, f"{side}{number}"))
                times[FLOOR].append(await running.floor(f"floor{number}{side}"))
    middle = {side: statistics.median(values) for side, values in times.items()}
    ratios = {
        SERVE: middle[SERVE] / middle[OURS],
        PROCESS: middle[PROCESS] / middle[OURS],
        FLOOR: middle[FLOOR] / middle[OURS],
    }
    report(
        "wake",
        database=database,
        runs=rounds,
        sides={side: summarise(values, runs=len(values)) for side, values in times.items()},
        ratios=ratios,
    )


async def _wake(running: Bench, side: str, key: str) -> float:
    began = time.time()
    await running.client.create_flow_run_from_deployment(
        running.deployments[side][0], parameters={"file": str(running.lines), "key": key}
    )
    await wait_until(lambda: key in running.seen(), what=f"the first line of {key}", timeout=180, every=0.02)
    return running.seen()[key] - began
