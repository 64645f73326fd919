"""The calendar: a month of a thousand rules, and what an event costs with ten, a hundred and a thousand rules.

Beside it stands the calendar computed from nothing.

The rules are mixed: of a hundred, 60 are due once a day in four timezones, 30 each hour, 9 each five minutes, and one
each minute. The first half of the month is recorded, the second is yet to come. The ledger is a SQLite file.
"""

from __future__ import annotations

import asyncio
import random
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path
from typing import Any

from sqlalchemy import insert

from benchmarks.report import report, summarise
from proactive_prefect.calendar.entries import Asked
from proactive_prefect.calendar.parity import first_difference, recompute
from proactive_prefect.calendar.projection import Projection
from proactive_prefect.ledger.db import Ledger, open_ledger
from proactive_prefect.ledger.outcomes import occurrence_key
from proactive_prefect.ledger.tables import Occurrence
from proactive_prefect.rules.models import from_snapshot
from proactive_prefect.rules.spans import due_within
from proactive_prefect.settings import Settings
from tests.calendar.rulesets import DAY, RAN, note, run_of, seen, tell

NOW = datetime(2026, 6, 15, 12, tzinfo=UTC)
MONTH = Asked(NOW - 15 * DAY, NOW + 15 * DAY)
ZONES = ("Europe/Berlin", "America/New_York", "Asia/Kolkata", "UTC")
_CHUNK = 10_000


def main(*, quick: bool) -> None:
    """Measure and report."""
    asyncio.run(_measure(quick))


async def _measure(quick: bool) -> None:
    queries, events = (10, 30) if quick else (50, 200)
    sides: dict[str, dict[str, float]] = {}
    for rules in (10, 100, 1000):
        with tempfile.TemporaryDirectory() as home:
            async with open_ledger(Settings(home=Path(home))) as ledger:
                recorded = await _fill(ledger, rules, days=3 if quick else 15)
                calendar = Projection(ledger)
                began = time.perf_counter()
                rows = len((found := await calendar.events(MONTH, NOW)).model_dump_json())
                first = time.perf_counter() - began
                took = [await _ask(calendar) for _ in range(queries)]
                shown = len(found.events) + len(found.always_running)
                name = "ours" if rules == 1000 else f"month_{rules}"
                sides[name] = summarise(took, first=first, rows=shown, mb=rows / 1e6, recorded=recorded)
                sides[f"event_{rules}"] = summarise([await _one_event(ledger, calendar, n) for n in range(events)])
                if rules == 1000:
                    sides["recompute"] = summarise(
                        [await _recompute(ledger, calendar) for _ in range(1 if quick else 3)]
                    )
    await asyncio.sleep(0)
    report(
        "calendar",
        runs=queries,
        sides=sides,
        ratios={
            "recompute": sides["recompute"]["p50"] / sides["ours"]["p50"],
            "event_10_over_1000": sides["event_10"]["p50"] / sides["event_1000"]["p50"],
        },
    )


def _rules(count: int) -> Iterator[dict[str, Any]]:
    for number in range(count):
        rule_id, share = f"rule-{number}", number % 100
        if share < 60:
            cron = f"{number % 60} {number % 24} * * {'mon-fri' if number % 2 else '*'}"
            yield {"kind": "cron", "id": rule_id, "cron": cron, "timezone": ZONES[number % len(ZONES)]}
        elif share < 90:
            yield {"kind": "cron", "id": rule_id, "cron": f"{number % 60} * * * *", "timezone": ZONES[number % 4]}
        else:
            yield {"kind": "heartbeat", "id": rule_id, "every": "1m" if share == 99 else "5m"}


async def _fill(ledger: Ledger, count: int, *, days: int) -> int:
    """Rules, and every occurrence of theirs in the last `days`; how many."""
    made = [seen(rule, at=NOW - 60 * DAY) for rule in _rules(count)]
    await note(ledger, *made, at=NOW - 60 * DAY)
    rng, total = random.Random(1), 0
    rows = (row for one in made for row in _occurrences(one.snapshot, NOW - days * DAY, rng))
    while chunk := list(islice(rows, _CHUNK)):
        async with ledger.write() as session:
            await session.execute(insert(Occurrence), chunk)
        total += len(chunk)
    return total


def _occurrences(snapshot: str, since: datetime, rng: random.Random) -> Iterator[dict[str, Any]]:
    rule = from_snapshot(snapshot)
    assert rule.timing is not None
    days = (since + number * DAY for number in range((NOW - since) // DAY))
    for due in (at for day in days for at in due_within(rule.timing, day, day + DAY, 100_000).instants):
        yield {
            "rule_id": rule.id,
            "kind": rule.kind,
            "owner_id": rule.owner,
            "key": occurrence_key(due),
            "due": due,
            "cause": "schedule",
            "outcome": rng.choices(("completed", "quiet", "failed", "skipped"), (30, 60, 2, 8))[0],
            "reason": "",
            "running": False,
            "started_at": due + timedelta(seconds=1),
            "ended_at": due + timedelta(seconds=2),
            "recorded_at": due,
            "revision": 0,
        }


async def _ask(calendar: Projection) -> float:
    """One question for the month, as the gateway answers it: to its last byte."""
    began = time.perf_counter()
    answer = await calendar.events(MONTH, NOW)
    await asyncio.to_thread(answer.model_dump_json)
    return time.perf_counter() - began


async def _one_event(ledger: Ledger, calendar: Projection, number: int) -> float:
    """From an occurrence that has changed to the entry that shows it."""
    rule = {"kind": "cron", "id": "rule-0"}
    due = NOW - timedelta(minutes=number + 1)
    await tell(ledger, run_of(rule, due, f"event-{number}"), *RAN)
    began = time.perf_counter()
    day = due.replace(hour=0, minute=0)
    found = await calendar.events(Asked(day, day + DAY, rules=frozenset({"rule-0"})), NOW)
    took = time.perf_counter() - began
    assert found.events or found.always_running
    return took


async def _recompute(ledger: Ledger, calendar: Projection) -> float:
    began = time.perf_counter()
    async with ledger.read() as session:
        singles, folded = await recompute(session, MONTH, NOW)
    took = time.perf_counter() - began
    given = await calendar.events(MONTH, NOW)
    assert first_difference([*given.events, *given.always_running], [*singles, *folded]) is None
    return took
