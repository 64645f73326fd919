"""`proactive calendar`: from the ledger itself, also while no server runs."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from proactive_prefect.ledger.db import open_ledger
from proactive_prefect.settings import Settings
from tests.calendar.rulesets import DAILY, HELD, HOUR, MIDNIGHT, MINUTE, MINUTELY, RAN, note, run_of, seen, tell

from .test_commands import proactive

FIRST = ("--start", "2026-03-01", "--days", "1")


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A folder whose ledger knows of a day: one rule that ran and was missed, one that is due each minute."""

    async def fill() -> None:
        async with open_ledger(Settings(home=tmp_path / ".proactive")) as ledger:
            await note(ledger, seen(DAILY), seen(MINUTELY))
            await tell(ledger, run_of(DAILY, MIDNIGHT + 9 * HOUR), *RAN, messages=["", "", "", "all \x1b[2J well"])
            await tell(ledger, run_of(DAILY, MIDNIGHT + 10 * HOUR), *HELD)
            for minute in range(15):
                await tell(ledger, run_of(MINUTELY, MIDNIGHT + minute * MINUTE), *RAN)

    asyncio.run(fill())
    return tmp_path


def test_the_agenda_lists_a_day(home: Path) -> None:
    """Often due rules as one row, the others by time, and what waits; nothing that a terminal would obey."""
    done = proactive(home, "calendar", *FIRST, TZ="UTC")
    assert done.returncode == 0, done.stderr
    lines = [" ".join(text.split()) for text in done.stdout.splitlines()]
    assert lines[:4] == [
        "Sun 2026-03-01",
        "often pulse 15 completed",
        "09:00 report completed all \N{REPLACEMENT CHARACTER}[2J well",
        "10:00 report missed",
    ]
    assert lines[4] == "missed report, due Sun 2026-03-01 10:00"


def test_the_day_and_the_week_show_the_same_day(home: Path) -> None:
    """By the hour, and as a column of a table."""
    day = proactive(home, "calendar", "--view", "day", *FIRST, TZ="UTC")
    assert "  09:00 ─────\n  09:00  report" in day.stdout
    week = proactive(home, "calendar", "--view", "week", "--start", "2026-02-23", TZ="UTC")
    assert week.returncode == 0, week.stderr
    assert "Sun 01 Mar" in week.stdout
    assert "10:00 missed" in week.stdout
    assert "15 completed" in week.stdout


def test_json_is_what_the_gateway_gives(home: Path) -> None:
    """All entries, filtered as asked; the queue too."""
    done = proactive(home, "calendar", *FIRST, "--rule", "report", "--status", "missed", "--json", TZ="UTC")
    found = json.loads(done.stdout)
    assert [one["event_id"] for one in found["events"]] == ["report:20260301T100000.000000Z"]
    assert found["stasis_total"] == 1
    assert found["version"] > 0
    assert found["events"][0]["actions"][:3] == ["approve_backfill_run", "reschedule", "delete_missed"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--start", "yesterday"), "allowed: ISO 8601"),
        (("--days", "0"), "allowed: 1 to 366"),
        (("--status", "fine"), "allowed: scheduled, running, expected"),
        (("--kind", "job"), "allowed: heartbeat, cron"),
    ],
)
def test_what_cannot_be_is_refused_with_what_is_allowed(tmp_path: Path, words: tuple[str, ...], said: str) -> None:
    """One line, exit code 2."""
    done = proactive(tmp_path, "calendar", *words)
    assert done.returncode == 2
    assert said in done.stderr
