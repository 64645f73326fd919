"""`why` and `events`: what the ledger says, also while no server runs."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from proactive_prefect.ledger.db import open_ledger
from proactive_prefect.ledger.log import append
from proactive_prefect.ledger.occurrences import apply
from proactive_prefect.settings import Settings

from ..daemon.running import clean_env
from ..ledger.histories import LONG_AGO, NOON, a_run, an_event, story
from .test_commands import proactive


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A folder whose ledger knows of one run that was skipped."""

    async def fill() -> None:
        async with open_ledger(Settings(home=tmp_path / ".proactive")) as ledger, ledger.write() as session:
            states = story(a_run(), "SCHEDULED/Scheduled", "CANCELLED/Skipped", messages=["", "overlap: \x1b[2J busy"])
            await apply(session, a_run(), states, log_since=LONG_AGO)

    asyncio.run(fill())
    return tmp_path


def test_why_says_what_became_of_a_time_without_a_server(home: Path) -> None:
    """One line for the outcome, then the facts; nothing that a terminal would obey."""
    done = proactive(home, "why", "disk", "2026-03-01T13:00+01:00")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == "disk at 2026-03-01 12:00:00Z: skipped"
    assert lines[1].startswith("skipped: overlap: ")
    assert "\x1b" not in done.stdout
    assert "heartbeat_skipped" in done.stdout


def test_why_answers_programs_in_json(home: Path) -> None:
    """The same answer that the gateway gives."""
    found = json.loads(proactive(home, "why", "disk", "2026-03-01T12:00Z", "--json").stdout)
    assert (found["verdict"], found["run"]["run_id"], found["cause"]) == ("skipped", "run-1", "schedule")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("why", "disk", "2026-03-01T12:00"), "offset"),
        (("why", "disk", "noon"), "ISO 8601"),
        (("why", "disc", "2026-03-01T12:00Z"), "'disc'"),
    ],
)
def test_why_says_in_one_line_what_was_wrong(home: Path, words: tuple[str, ...], said: str) -> None:
    """A time without an offset, no time at all, a rule that nobody ever saw: exit code 2."""
    done = proactive(home, *words)
    assert done.returncode == 2
    assert said in done.stderr.splitlines()[0]


def test_events_shows_the_latest_of_the_log(home: Path) -> None:
    """Oldest first, as many as asked for; each a line of JSON for programs."""
    heading, *lines = proactive(home, "events").stdout.splitlines()
    assert heading.split() == ["seq", "when", "event", "rule", "status", "said"]
    assert [line.split()[3] for line in lines] == [
        "heartbeat_scheduled",
        "heartbeat_skipped",
    ]
    (last,) = proactive(home, "events", "-n", "1", "--json").stdout.splitlines()
    event = json.loads(last)
    assert (event["seq"], event["event_type"], event["source_ref"]) == (2, "heartbeat_skipped", "disk")
    assert set(event) == {
        "seq",
        "event_type",
        "source",
        "source_ref",
        "owner_id",
        "session_id",
        "channel",
        "occurred_at_utc",
        "status",
        "payload",
    }
    assert proactive(home, "events", "--rule", "other", "--json").stdout == ""


def test_events_follows_the_log_until_it_is_stopped(home: Path) -> None:
    """What another process writes is shown at once; Ctrl-C ends it without a traceback."""
    process = subprocess.Popen(
        [sys.executable, "-m", "proactive_prefect.cli", "events", "--follow", "--json"],
        cwd=home,
        env=clean_env(home),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # What was started in the background hands on that Ctrl-C is to be ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    try:
        assert process.stdout is not None
        assert [json.loads(process.stdout.readline())["seq"] for _ in range(2)] == [1, 2]

        async def write() -> None:
            async with open_ledger(Settings(home=home / ".proactive")) as ledger, ledger.write() as session:
                await append(session, [an_event("later", at=NOON)])

        asyncio.run(write())
        assert json.loads(process.stdout.readline())["seq"] == 3
    finally:
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    assert "Traceback" not in errors
