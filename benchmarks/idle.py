"""What a worker costs while nothing is due: requests a minute, CPU and memory, with 100 deployments in its pool."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

from prefect.client.schemas.schedules import IntervalSchedule

from .harness import OURS, PROCESS, CountingProxy, bench, databases, used
from .report import report

_RULES = 100


def main(quick: bool) -> None:
    """Measure both workers over the same minutes, each behind a counting proxy of its own, and report."""
    for database in databases():
        asyncio.run(_measure(database, 2.5 if quick else 5.0))


async def _measure(database: str, minutes: float) -> None:
    async with bench(database) as running:
        anchor = datetime.now(UTC) - timedelta(hours=1)
        daily = IntervalSchedule(interval=timedelta(days=1), anchor_date=anchor)
        schedules = [{"schedule": daily.model_dump(mode="json"), "active": True}]
        async with CountingProxy(running.server.api_url) as ours, CountingProxy(running.server.api_url) as stock:
            proxies = {OURS: ours, PROCESS: stock}
            for side, proxy in proxies.items():
                url = f"http://127.0.0.1:{proxy.port}/api"
                await running.work(side, _RULES, api_url=url, schedules=schedules)
            await asyncio.sleep(80)  # what it does once, at its start or after a change, is not what it does when idle
            before = {side: used(running.processes[side]) for side in proxies}
            for proxy in proxies.values():
                proxy.requests.clear()
            await asyncio.sleep(60 * minutes)
            sides = {}
            for side, proxy in proxies.items():
                after = used(running.processes[side])
                sides[side] = {
                    "requests_per_min": len(proxy.requests) / minutes,
                    "cpu_per_min": (after.cpu - before[side].cpu) / minutes,
                    "memory_mib": after.memory,
                }
    ours_side, stock_side = sides[OURS], sides[PROCESS]
    ratios = {
        PROCESS: stock_side["requests_per_min"] / max(ours_side["requests_per_min"], 1 / minutes),
        f"{PROCESS}_cpu": stock_side["cpu_per_min"] / max(ours_side["cpu_per_min"], 1e-3),
        f"{PROCESS}_memory": stock_side["memory_mib"] / ours_side["memory_mib"],
    }
    report("idle", database=database, runs=_RULES, sides=sides, ratios=ratios)
