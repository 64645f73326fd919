"""How late scheduled runs are: one rule alone, then 20 rules due together. Negative is early.

Each side has slots of its own in time, so that no two are due together. APScheduler, in a process that does nothing
else, is the floor: it runs a function, without a state, a log or a process of its own.
"""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime, timedelta

from apscheduler.schedulers.asyncio import AsyncIOScheduler
from apscheduler.triggers.date import DateTrigger
from prefect.client.schemas.schedules import IntervalSchedule

from tests.support import wait_until

from .harness import OURS, PROCESS, SERVE, Bench, bench, databases
from .report import report, summarise

APSCHEDULER = "apscheduler"
_TOGETHER = 20


def main(quick: bool) -> None:
    """Measure alone and together, and report each: `fire` and `fire_together`."""
    for database in databases():
        asyncio.run(_measure("fire", database, rounds=3 if quick else 20, rules=1, slot=15))
        asyncio.run(_measure("fire_together", database, rounds=1 if quick else 4, rules=_TOGETHER, slot=150))


async def _measure(name: str, database: str, *, rounds: int, rules: int, slot: int) -> None:
    sides = (OURS, SERVE, PROCESS)
    every = slot * len(sides)
    async with bench(database) as running:
        first = datetime.now(UTC).replace(microsecond=0) + timedelta(seconds=60 + rules * 2)
        anchors = {side: first + timedelta(seconds=slot * number) for number, side in enumerate(sides)}
        for side in (OURS, PROCESS):
            schedule = IntervalSchedule(interval=timedelta(seconds=every), anchor_date=anchors[side])
            await running.work(side, rules, schedules=[{"schedule": schedule.model_dump(mode="json"), "active": True}])
        await running.serve(rules, every=every, anchor=anchors[SERVE])
        late: dict[str, list[float]] = {}
        for side in sides:
            instants = [anchors[side] + timedelta(seconds=every * number) for number in range(rounds)]
            while instants and instants[0] < datetime.now(UTC):
                instants = [each + timedelta(seconds=every) for each in instants]  # it took long to set up
            late[side] = await _lateness(running, side, instants, rules)
    late[APSCHEDULER] = await _apscheduler(rules, rounds)
    ratios = {side: max(late[side]) / max(late[OURS]) for side in late if side != OURS}
    report(
        name,
        database=database,
        runs=rounds * rules,
        sides={side: summarise(each, min=min(each)) for side, each in late.items()},
        ratios=ratios,
    )


async def _lateness(running: Bench, side: str, instants: list[datetime], rules: int) -> list[float]:
    """Seconds between each instant and the first line of each of its runs."""

    def lines() -> list[tuple[float, float]]:
        wanted = {each.timestamp() for each in instants}
        found = []
        for row in running.lines.read_text().splitlines() if running.lines.exists() else []:
            key, _, at = row.partition(" ")
            if key.startswith(f"{side}:") and float(key.removeprefix(f"{side}:")) in wanted:
                found.append((float(key.removeprefix(f"{side}:")), float(at)))
        return found

    patience = instants[-1].timestamp() - time.time() + 240
    count = len(instants) * rules
    await wait_until(lambda: len(lines()) >= count, what=f"{count} runs of {side}", timeout=patience, every=0.5)
    return [at - due for due, at in lines()]


async def _apscheduler(rules: int, rounds: int) -> list[float]:
    late: list[float] = []
    scheduler = AsyncIOScheduler(timezone=UTC)
    scheduler.start()

    async def tick(due: float) -> None:
        late.append(time.time() - due)

    for number in range(rounds):
        due = datetime.now(UTC) + timedelta(seconds=2 + number)
        for _ in range(rules):
            scheduler.add_job(tick, DateTrigger(due), args=[due.timestamp()])
    await wait_until(lambda: len(late) >= rules * rounds, what="all jobs of APScheduler", timeout=rounds + 60)
    scheduler.shutdown()
    return late
