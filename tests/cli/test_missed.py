"""`proactive missed`: the list without a server, and words that say what is wrong."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from proactive_prefect.ledger.cursors import BEGAN, move
from proactive_prefect.ledger.db import open_ledger
from proactive_prefect.ledger.occurrences import apply
from proactive_prefect.ledger.tables import LeftOut
from proactive_prefect.ledger.versions import SeenRule, note_rules
from proactive_prefect.rules.models import HeartbeatRule, to_snapshot
from proactive_prefect.settings import Settings

from ..ledger.histories import LONG_AGO, NOON, a_run, story
from .test_commands import proactive


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A folder whose ledger has one missed run, one that the sweep has not found yet, and some left out."""
    return fill_ledger(tmp_path)


def fill_ledger(folder: Path, not_found: int = 1) -> Path:
    """The folder, with its ledger; of the hourly rule `next` so many due times were not kept, nor found."""
    now = datetime.now(UTC)
    last = now.replace(minute=0, second=0, microsecond=0)
    last -= timedelta(hours=1 if now - last < timedelta(minutes=5) else 0)
    action = {"type": "python", "call": "flows.actions:look"}
    rule = HeartbeatRule.model_validate({"id": "next", "every": "1h", "on_missed": "skip", "action": action})
    seen = SeenRule("next", "heartbeat", "d", to_snapshot(rule), "active", LONG_AGO, LONG_AGO)

    async def fill() -> None:
        async with open_ledger(Settings(home=folder / ".proactive")) as ledger, ledger.write() as session:
            states = story(a_run(), "SCHEDULED/Scheduled", "PAUSED/Missed")
            await apply(session, a_run(), states, log_since=LONG_AGO)
            await note_rules(session, [seen], now, log_since=LONG_AGO)
            await move(session, BEGAN, last - timedelta(hours=not_found - 1, minutes=5))
            left = {"rule_id": "disk", "since": NOON - timedelta(hours=9), "until": NOON, "count": 9}
            session.add(LeftOut(**left, reason="older than the rule's lookback of 7d", recorded_at=now))

    asyncio.run(fill())
    return folder


def test_the_list_says_what_waits_what_comes_and_what_is_left_out(home: Path) -> None:
    """Also before anything of it is started."""
    done = proactive(home, "missed", "list")
    assert done.returncode == 0, done.stderr
    assert "disk  2026-03-01 12:00:00Z" in done.stdout
    assert "waits for a decision" in done.stdout
    assert "is skipped: stale: due " in done.stdout
    assert "left out: 9 of disk from 2026-03-01 03:00:00Z" in done.stdout
    found = json.loads(proactive(home, "missed", "list", "disk", "--json").stdout)
    assert [(item["rule_id"], item["waits_for"]) for item in found["items"]] == [("disk", "decision")]
    assert found["found_next"] == []


def test_of_a_rule_that_was_due_often_one_line_says_what_comes(tmp_path: Path) -> None:
    """Of which the same becomes each time; programs get each of them."""
    home = fill_ledger(tmp_path, not_found=6)
    [row] = [row for row in proactive(home, "missed", "list").stdout.splitlines() if row.startswith("next ")]
    assert row.split()[1:3] == ["6", "from"]
    assert row.rstrip().endswith("is skipped: stale")
    assert len(json.loads(proactive(home, "missed", "list", "--json").stdout)["found_next"]) == 6


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("approve",), "which ones?"),
        (("delete", "1", "--all"), "which ones?"),
        (("approve", "--rule", "disk", "--all"), "which ones?"),
        (("reschedule", "1", "--to", "tomorrow"), "ISO 8601"),
        (("reschedule", "1"), "--to"),
        (("list", "--before", "2026-03-01T12:00"), "offset"),
        (("drop", "1"), "drop"),
    ],
)
def test_what_is_wrong_is_said(home: Path, words: tuple[str, ...], said: str) -> None:
    """In one line, with exit code 2."""
    done = proactive(home, "missed", *words)
    assert (done.returncode, said in done.stderr) == (2, True), done.stderr
