"""How late scheduled runs are: one rule alone, then 20 rules due together. Negative is early.

All sides have their instants in the same minutes, each at seconds of its own, so that no two are at work together:
stock Prefect starts its interpreters up to ten seconds ahead. Ours has more, since a 99th percentile takes a hundred.
APScheduler, in this process, is the floor: it runs a function, without a state, a log or a process of its own.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from apscheduler.schedulers.asyncio import AsyncIOScheduler
from apscheduler.triggers.date import DateTrigger
from prefect.client.schemas.schedules import RRuleSchedule

from tests.support import wait_until

from .harness import OURS, PROCESS, SERVE, Bench, bench, databases
from .report import report, summarise

APSCHEDULER = "apscheduler"
_TOGETHER = 20
# The seconds of each minute at which one rule of each side is due. Stock is at work from ten seconds before on.
_SECONDS = {PROCESS: (12,), SERVE: (27,), OURS: tuple(range(34, 59))}
# Seconds that 20 rules due together are given: by stock, at a rate of 0.2 to 0.3 runs a second, and by ours.
_SLOTS = {OURS: 15, SERVE: 90, PROCESS: 120}


def main(quick: bool) -> None:
    """Measure alone and together, and report each: `fire` and `fire_together`."""
    for database in databases():
        asyncio.run(_alone(database, minutes=1 if quick else 4))
        asyncio.run(_together(database, rules=5 if quick else _TOGETHER, rounds=1 if quick else 3))


async def _alone(database: str, minutes: int) -> None:
    async with bench(database) as running:
        begin = datetime.now(UTC).replace(second=0, microsecond=0) + timedelta(minutes=2)
        instants = {
            side: [begin + timedelta(minutes=nth, seconds=second) for nth in range(minutes) for second in seconds]
            for side, seconds in _SECONDS.items()
        }
        for side in (OURS, PROCESS):
            await running.work(side, schedules=[_each_minute(begin, _SECONDS[side])])
        await running.serve(every=60, anchor=instants[SERVE][0])
        await _report("fire", database, running, instants, 1)


async def _together(database: str, rules: int, rounds: int) -> None:
    async with bench(database) as running:
        begin = datetime.now(UTC).replace(microsecond=0) + timedelta(seconds=75 + rules)
        instants = {OURS: [begin + timedelta(seconds=_SLOTS[OURS] * nth) for nth in range(rounds)]}
        instants[SERVE] = [instants[OURS][-1] + timedelta(seconds=_SLOTS[OURS] + 10)]
        instants[PROCESS] = [instants[SERVE][-1] + timedelta(seconds=_SLOTS[SERVE] + 10)]
        for side in (OURS, PROCESS):
            await running.work(side, rules, schedules=[_once(each) for each in instants[side]])
        await running.serve(rules, every=86400, anchor=instants[SERVE][0])
        await _report("fire_together", database, running, instants, rules)


def _each_minute(begin: datetime, seconds: Sequence[int]) -> dict[str, Any]:
    return _schedule(begin, f"FREQ=MINUTELY;BYSECOND={','.join(map(str, seconds))}")


def _once(at: datetime) -> dict[str, Any]:
    return _schedule(at, "FREQ=DAILY;COUNT=1")


def _schedule(begin: datetime, rule: str) -> dict[str, Any]:
    text = f"DTSTART:{begin:%Y%m%dT%H%M%S}\nRRULE:{rule}"
    return {"schedule": RRuleSchedule(rrule=text, timezone="UTC").model_dump(mode="json"), "active": True}


async def _report(name: str, database: str, running: Bench, instants: dict[str, list[datetime]], rules: int) -> None:
    behind = max(each for side in instants.values() for each in side) - datetime.now(UTC)
    floor = asyncio.create_task(_apscheduler(instants[OURS], rules))
    patience = behind.total_seconds() + max(_SLOTS.values()) + 120
    late: dict[str, list[float]] = {}
    for side, each in instants.items():
        late[side] = await _lateness(running, side, each, rules, patience)
    late[APSCHEDULER] = await floor
    ratios = {side: max(late[side]) / max(late[OURS]) for side in late if side != OURS}
    ratios |= {f"{side}_p50": summarise(late[side])["p50"] / summarise(late[OURS])["p50"] for side in (SERVE, PROCESS)}
    report(
        name,
        database=database,
        runs=len(late[OURS]),
        sides={side: summarise(each, min=min(each), runs=len(each)) for side, each in late.items()},
        ratios=ratios,
    )


async def _lateness(running: Bench, side: str, instants: list[datetime], rules: int, patience: float) -> list[float]:
    """Seconds between each instant and the first line of each of its runs."""
    wanted = {each.timestamp() for each in instants}

    def lines() -> list[tuple[float, float]]:
        found = []
        for row in running.lines.read_text().splitlines() if running.lines.exists() else []:
            key, _, at = row.partition(" ")
            if key.startswith(f"{side}:") and float(key.removeprefix(f"{side}:")) in wanted:
                found.append((float(key.removeprefix(f"{side}:")), float(at)))
        return found

    count = len(instants) * rules
    await wait_until(lambda: len(lines()) >= count, what=f"{count} runs of {side}", timeout=patience, every=0.5)
    return [at - due for due, at in lines()]


async def _apscheduler(instants: list[datetime], rules: int) -> list[float]:
    """The same instants, half a second later, for jobs in this process."""
    late: list[float] = []
    scheduler = AsyncIOScheduler(timezone=UTC)
    scheduler.start()

    async def tick(due: float) -> None:
        late.append(time.time() - due)

    dues = [each + timedelta(seconds=0.5) for each in instants]
    for due in dues:
        for _ in range(rules):
            scheduler.add_job(tick, DateTrigger(due), args=[due.timestamp()], misfire_grace_time=60)
    patience = (dues[-1] - datetime.now(UTC)).total_seconds() + 60
    await wait_until(
        lambda: len(late) >= rules * len(dues), what="all jobs of APScheduler", timeout=patience, every=0.5
    )
    scheduler.shutdown()
    return late
