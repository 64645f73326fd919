"""What the calendar costs: a month of a thousand rules, and an event among few rules and among many."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event

from proactive_prefect.calendar.calendar import Calendar
from proactive_prefect.calendar.projection import Projection
from proactive_prefect.ledger.db import Ledger, open_ledger
from proactive_prefect.settings import Settings
from tests.ledger.histories import NOON

from .rulesets import DAILY, DAY, HOUR, MIDNIGHT, MINUTELY, RAN, asked, note, run_of, seen, tell

MONTH = asked(MIDNIGHT - 15 * DAY, MIDNIGHT + 15 * DAY)


def rules(count: int) -> list[dict[str, Any]]:
    """Some due once a day in different timezones, some each hour, some each minute."""
    zones = ("Europe/Berlin", "America/New_York", "UTC")
    crons = ("0 9 * * *", "30 17 * * mon-fri", "15 * * * *")
    daily = [
        {**DAILY, "id": f"cron-{n}", "cron": crons[n % 3], "timezone": zones[n % 3]} for n in range(count - count // 10)
    ]
    return [*daily, *({**MINUTELY, "id": f"pulse-{n}"} for n in range(count // 10))]


async def test_a_month_of_a_thousand_rules_is_answered_at_once(tmp_path: Path) -> None:
    """Whole, to its last byte; `python -m benchmarks calendar` has the figures, this is a ceiling for busy machines."""
    async with open_ledger(Settings(home=tmp_path)) as ledger:
        await note(ledger, *(seen(rule) for rule in rules(1000)))
        calendar = Projection(ledger)
        (await calendar.events(MONTH, NOON)).model_dump_json()
        began = time.perf_counter()
        found = await calendar.events(MONTH, NOON)
        text = found.model_dump_json()
        took = time.perf_counter() - began
    assert len({one.source_ref for one in (*found.events, *found.always_running)}) == 1000
    assert len(found.events) + len(found.always_running) > 10_000
    assert len(text) > 1_000_000
    assert took < 5


async def statements(ledger: Ledger, count: int) -> list[str]:
    """What is asked of the database for one event, from the change to the entry that shows it, among so many rules.

    With how the database finds it.
    """
    await note(ledger, *(seen(rule) for rule in rules(count)))
    calendar, rule = Projection(ledger), rules(count)[0]
    await calendar.events(MONTH, NOON)
    await tell(ledger, run_of(rule, MIDNIGHT + 8 * HOUR), *RAN)
    said: list[tuple[str, Any]] = []
    engine = ledger._readers.sync_engine

    def hear(_connection: Any, _cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        if statement.startswith("SELECT"):
            said.append((statement, parameters))

    event.listen(engine, "before_cursor_execute", hear)
    try:
        found = await calendar.events(replace(asked(), rules=frozenset({rule["id"]})), NOON)
    finally:
        event.remove(engine, "before_cursor_execute", hear)
    assert [one.status for one in found.events if one.scheduled_at_utc == MIDNIGHT + 8 * HOUR] == ["completed"]
    assert (calendar.changes, calendar.rebuilds) == (1, 1)
    explained = []
    async with ledger.read() as session:
        connection = await session.connection()
        for statement, parameters in said:
            plan = await connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters)
            explained.append(f"{statement}: {'; '.join(str(row[-1]) for row in plan.all())}")
    return explained


async def test_an_event_costs_the_same_among_few_rules_and_among_many(tmp_path: Path) -> None:
    """Word for word the same questions to the database, each by an index, however many rules there are."""
    asked_for = []
    for count in (10, 200):
        async with open_ledger(Settings(home=tmp_path / str(count))) as ledger:
            asked_for.append(await statements(ledger, count))
    few, many = asked_for
    assert few == many
    assert len(few) < 12
    assert [one for one in few if "SCAN" in one and "log_head" not in one] == []  # that is one row


@pytest.mark.parametrize("share", [0.0, 1.0])
async def test_shadow_mode_checks_the_share_that_is_set(ledger: Ledger, share: float) -> None:
    """None of the answers, or all; beside the answer, not before it."""
    import asyncio

    await note(ledger, seen(DAILY))
    calendar = Calendar(ledger, Settings(calendar_shadow=share))
    await calendar.events(asked())
    await asyncio.gather(*calendar._checks)
    assert calendar.state()["shadow_compared"] == share
    assert calendar.state()["shadow_differences"] == 0
