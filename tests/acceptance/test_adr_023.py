"""ADR 023: the schedule types of skills, their conditions, and what their scheduler service can do."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest

from .conftest import Life


def due(run: dict[str, str]) -> datetime:
    """When a run was due."""
    return datetime.fromisoformat(run["expected_start_time"])


def test_a_cron_schedule_fires_in_its_timezone(life: Life) -> None:
    """A cron schedule with a timezone runs at the full minute."""
    [run, *_] = life.wait_for("skill-cron", "Completed")
    assert due(run).second == 0


def test_an_interval_schedule_counts_from_its_start(life: Life) -> None:
    """An interval of 15 s with startAt runs at startAt plus multiples of 15 s."""
    [run, *_] = life.wait_for("skill-interval", "Completed")
    start_at = life.began - timedelta(seconds=7)
    assert (due(run) - start_at).total_seconds() % 15 == 0


def test_a_one_time_schedule_fires_once(life: Life) -> None:
    """A one-time schedule has exactly one run, at its instant."""
    [run] = life.wait_for("skill-once", "Completed")
    assert due(run) == life.once_at
    assert len(life.runs("skill-once")) == 1


@pytest.mark.parametrize(
    ("rule", "code"),
    [
        ("out-of-hours", "outside_active_hours"),
        ("wrong-day", "wrong_day"),
        ("production-only", "environment"),
        ("in-session", "session_inactive"),
        ("custom", "condition_false"),
    ],
)
def test_conditions_that_do_not_hold_skip_with_their_reason(life: Life, rule: str, code: str) -> None:
    """activeHours, daysOfWeek, environment, sessionActive and customCondition each skip, and say which it was."""
    [run, *_] = life.wait_for(rule, "Skipped")
    assert run["state"]["message"].startswith(f"{code}: ")
    assert run["state"]["type"] == "CANCELLED"
    assert life.runs(rule, "Completed", "Quiet", "Failed") == []


def test_trigger_now_pause_resume_and_the_next_run(life: Life) -> None:
    """triggerNow runs outside the schedule; pause and resume are Prefect's own; the next run is told."""

    def said(*words: str) -> str:
        done = life.command(*words)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    before = len(life.runs("skill-cron", "Completed"))
    said("trigger", "skill-cron", "--wait")
    assert len(life.runs("skill-cron", "Completed")) > before
    said("pause", "skill-cron")
    [deployment] = life.prefect("/deployments/filter", {"deployments": {"name": {"any_": ["skill-cron"]}}})
    assert deployment["paused"] is True
    said("resume", "skill-cron")
    shown = json.loads(said("show", "skill-cron", "--json"))
    assert datetime.fromisoformat(shown["next_fire"]) > datetime.now(UTC) - timedelta(seconds=5)
