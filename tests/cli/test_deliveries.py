"""`proactive deliveries`, without a server: the inbox is the ledger's."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from proactive_prefect.ledger.db import open_ledger
from proactive_prefect.ledger.deliveries import Settled, settle
from proactive_prefect.settings import Settings
from proactive_prefect.webhooks.inbox import Inbox

from ..webhooks.calls import a_call
from .test_commands import proactive

HEADERS = json.dumps({"x-event": "push", "x-api-key": "private", "x-name": "\x1b[2J"})


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A folder whose inbox has one delivery that is settled and one that waits."""

    async def fill() -> None:
        async with open_ledger(Settings(home=tmp_path / ".proactive")) as ledger:
            inbox = Inbox(ledger)
            first = await inbox.accept(a_call("first", headers=HEADERS, payload='{"n": "\\u001b[2J"}'))
            await inbox.accept(a_call("second", rule_id="other"))
            async with ledger.write() as session:
                await settle(session, [Settled(first.delivery.id, "dispatched", "run-1")], datetime.now(UTC))

    asyncio.run(fill())
    return tmp_path


def test_deliveries_are_listed_and_shown(home: Path) -> None:
    """The latest first; a stranger's words never reach the terminal as they are, nor what lets somebody in."""
    listed = proactive(home, "deliveries")
    assert listed.returncode == 0, listed.stderr
    heading, *lines = listed.stdout.splitlines()
    assert heading.split() == ["delivery", "when", "webhook", "status", "sender's", "id", "said"]
    assert [line.split()[3:5] for line in lines] == [["other", "waiting"], ["hook", "dispatched"]]
    assert proactive(home, "deliveries", "list", "--webhook", "hook").stdout.count("\n") == 2
    shown = proactive(home, "deliveries", "show", "first").stdout
    assert "x-event" in shown
    assert "(redacted)" in shown
    assert "private" not in shown
    assert "\x1b" not in shown
    found = json.loads(proactive(home, "deliveries", "show", "first", "--json").stdout)
    assert (found["status"], found["run_id"], found["webhook"]) == ("dispatched", "run-1", "hook")


def test_a_delivery_is_replayed_and_erased(home: Path) -> None:
    """A replay is a new delivery; what is erased can be shown, and not replayed; one that waits is not erased."""
    made = json.loads(proactive(home, "deliveries", "replay", "first", "--json").stdout)
    assert made["status"] == "waiting"
    erased = proactive(home, "deliveries", "erase", "first")
    assert (erased.returncode, erased.stdout.strip()) == (0, "erased: 1")
    assert json.loads(proactive(home, "deliveries", "show", "first", "--json").stdout)["payload"] is None
    assert proactive(home, "deliveries", "replay", "first").returncode == 2
    waits = proactive(home, "deliveries", "erase", "second")
    assert (waits.returncode, "still waits" in waits.stderr) == (2, True)
    assert proactive(home, "deliveries", "erase", "--before", "2099-01-01T00:00Z").stdout.strip() == "erased: 0"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("show", "nothing"), "no delivery 'nothing'"),
        (("list", "--status", "lost"), "allowed: waiting"),
        (("erase",), "name one delivery"),
        (("erase", "first", "--webhook", "hook"), "name one delivery"),
        (("erase", "--before", "yesterday"), "ISO 8601"),
    ],
)
def test_wrong_input_is_one_line(home: Path, words: tuple[str, ...], said: str) -> None:
    """What was wrong, and exit code 2."""
    done = proactive(home, "deliveries", *words)
    assert (done.returncode, said in done.stderr) == (2, True), done.stderr
