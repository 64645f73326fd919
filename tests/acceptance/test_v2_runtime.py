"""Scheduling runtime V2, phase by phase, one test a promise; what was missed has a file of its own."""

from __future__ import annotations

import itertools
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx

from proactive_prefect.rules.timing import due_between
from proactive_prefect.soak.rules import soak_rules

from ..support import wait_until_sync
from .conftest import Life

ROOT = Path(__file__).parents[2]
METRICS = "/api/v1/ops/metrics/scheduling-runtime"
EVENTS = "/api/v1/ops/scheduling/events"
STREAM = "/api/v1/ops/scheduling/stream"
CALENDAR = "/api/v1/ops/calendar/events"
PAST = {"completed", "quiet", "failed", "timed_out", "cancelled", "skipped", "missed", "unknown"}


def metrics(life: Life) -> dict[str, Any]:
    found: dict[str, Any] = life.gateway(METRICS)["metrics"]
    return found


def every_event(life: Life, since_seq: int = 0) -> list[dict[str, Any]]:
    """The log on from `since_seq`, page by page."""
    found: list[dict[str, Any]] = []
    while True:
        page = life.gateway(EVENTS, since_seq=found[-1]["seq"] if found else since_seq, limit=500)["events"]
        found += page
        if len(page) < 500:
            return found


def logged(life: Life, event_type: str, rule: str) -> list[dict[str, Any]]:
    """Wait for an event of a rule; gives all of that type."""

    def there() -> list[dict[str, Any]]:
        return [one for one in every_event(life) if (one["event_type"], one["source_ref"]) == (event_type, rule)]

    return wait_until_sync(there, what=f"{event_type} of {rule}", timeout=120, every=1)


def test_phase_0_the_baseline_is_measured(life: Life) -> None:
    """Runs raise the counters of events; how late they began is measured, not assumed."""
    logged(life, "heartbeat_completed", "beat")
    before = metrics(life)
    life.wait_for("beat", "Completed", count=len(life.runs("beat", "Completed")) + 1)
    after = wait_until_sync(
        lambda: found if (found := metrics(life))["event_bus"]["seq"] > before["event_bus"]["seq"] else None,
        what="the log goes on",
        timeout=60,
    )
    assert after is not None
    assert after["counters"]["heartbeat_events_total"] >= before["counters"]["heartbeat_events_total"]
    assert after["counters"]["event_emissions_total"] > before["counters"]["event_emissions_total"]
    assert after["projection"]["due_lag_samples"] > 0
    assert after["projection"]["due_lag_seconds_max"] >= after["projection"]["due_lag_seconds_avg"] >= 0
    assert after["uptime_seconds"] > before["uptime_seconds"]


def test_phase_1_lifecycles_are_events_with_the_whole_envelope(life: Life) -> None:
    """Heartbeat and cron runs are logged from being scheduled to their end, in that order, each once."""
    [completed, *_] = logged(life, "cron_run_completed", "each-minute")
    envelope = {"event_type", "source", "source_ref", "owner_id", "session_id", "channel", "occurred_at_utc", "status"}
    assert envelope | {"payload", "seq"} <= completed.keys()
    run_id = completed["payload"]["run_id"]
    steps = [one["event_type"] for one in every_event(life) if one["payload"].get("run_id") == run_id]
    assert sorted(steps) == ["cron_run_completed", "cron_run_scheduled", "cron_run_started"]
    assert steps.index("cron_run_started") < steps.index("cron_run_completed")
    logged(life, "heartbeat_failed", "broken")
    created = {one["source_ref"] for one in every_event(life) if one["event_type"].endswith("_job_created")}
    assert {"beat", "each-minute", "door", "skill-once"} <= created


def test_phase_1_the_calendar_shows_what_prefect_has(life: Life) -> None:
    """What ran once is an entry with its run; what is due every minute is one row that counts its runs."""
    [once] = life.wait_for("skill-once", "Completed")
    life.wait_for("each-minute", "Completed")

    def same() -> bool:
        completed = len(life.runs("each-minute", "Completed"))
        now = datetime.now(UTC)
        span = {"start": (now - timedelta(days=1)).isoformat(), "end": (now + timedelta(hours=1)).isoformat()}
        found = life.gateway(CALENDAR, **span)
        shown = [entry for entry in found["events"] if entry["source_ref"] == "skill-once"]
        rows = [entry for entry in found["always_running"] if entry["source_ref"] == "each-minute"]
        counted = sum(row["counts"].get("completed", 0) for row in rows)
        return [(entry["run_id"], entry["status"]) for entry in shown] == [(once["id"], "completed")] and (
            counted == completed
        )

    assert wait_until_sync(same, what="the calendar is what Prefect has", timeout=60, every=1)
    assert metrics(life)["projection_state"]["shadow_differences"] == 0


def test_phase_2_a_client_that_comes_back_loses_nothing(life: Life) -> None:
    """Replay from any seq gives the same events, gapless; the stream gives them too, with the projection's version."""
    logged(life, "heartbeat_completed", "beat")
    events = every_event(life)
    assert [one["seq"] for one in events] == list(range(events[0]["seq"], events[-1]["seq"] + 1))
    middle = events[len(events) // 2]["seq"]
    assert every_event(life, since_seq=middle)[: len(events) // 4] == events[len(events) // 2 + 1 :][: len(events) // 4]
    url = f"{life.up['gateway_url']}{STREAM}"
    answer = httpx.get(url, params={"since_seq": middle, "once": 1}, headers=life.operator, timeout=60)
    told = [json.loads(line.removeprefix("data: ")) for line in answer.text.splitlines() if line.startswith("data: ")]
    streamed = [one for one in told if "event" in one]
    assert [one["event"]["seq"] for one in streamed][:3] == [middle + 1, middle + 2, middle + 3]
    assert all(one["projection_version"] >= 0 and one["projection_last_event_seq"] >= 0 for one in told)


def test_phase_3_pushes_are_counted(life: Life) -> None:
    """Connections, payloads and replays are in the metrics, so that polling can be compared with them."""
    before = metrics(life)["counters"]
    life.gateway(EVENTS, limit=1)
    httpx.get(
        f"{life.up['gateway_url']}{STREAM}", params={"since_seq": 0, "once": 1}, headers=life.operator, timeout=60
    )
    after = metrics(life)["counters"]
    assert after["push_replay_requests"] > before["push_replay_requests"]
    assert after["push_stream_connects"] > before["push_stream_connects"]
    assert after["push_stream_disconnects"] > before["push_stream_disconnects"]
    assert after["push_stream_event_payloads"] > before["push_stream_event_payloads"]


def test_phase_4_a_cron_rule_of_a_session_wakes_the_next_heartbeat(life: Life) -> None:
    """Without a flag the session's heartbeat learns that the run ended; a rule that says off wakes nobody."""
    life.wait_for("collect-in-silence", "Completed")

    def told() -> list[dict[str, Any]]:
        return [run for run in life.runs("watch", "Completed") if "cron collect ended" in run["state"]["message"]]

    [woken, *_] = wait_until_sync(told, what="the heartbeat is told", timeout=240, every=1)
    assert "completed" in woken["state"]["message"]
    assert not [run for run in life.runs("watch", "Completed") if "in-silence" in run["state"]["message"]]


def test_phase_4_a_heartbeat_can_be_woken_now(life: Life) -> None:
    """`now` runs it beside its own time, with the reason, and `last` shows both."""
    url = f"{life.up['gateway_url']}/api/v1/heartbeat/wake"
    body = {"mode": "now", "rule": "watch", "reason": "a person asked"}
    answer = httpx.post(url, json=body, headers=life.operator, timeout=60)
    assert (answer.status_code, answer.json()["rules"]) == (202, ["watch"])

    def told() -> list[dict[str, Any]]:
        return [run for run in life.runs("watch", "Completed") if "a person asked" in run["state"]["message"]]

    wait_until_sync(told, what="the heartbeat ran with the reason", timeout=120, every=0.5)
    last = life.gateway("/api/v1/heartbeat/last", rule="watch")["last"]
    assert last["rule_id"] == "watch"
    assert last["session_id"] == "research"


def test_phase_4_one_shot_and_recurring_rules_run_at_their_times(life: Life) -> None:
    """A one-shot runs once, at its instant; a cron rule at each full minute, none left out between two runs."""
    [once] = life.wait_for("skill-once", "Completed")
    assert datetime.fromisoformat(once["expected_start_time"]) == life.once_at
    runs = life.wait_for("each-minute", "Completed", "Skipped", count=2)
    times = sorted(datetime.fromisoformat(run["expected_start_time"]) for run in runs)
    assert all(later - earlier == timedelta(minutes=1) for earlier, later in itertools.pairwise(times))
    assert len(life.runs("skill-once")) == 1


def test_phase_4_nothing_is_silently_missed(life: Life) -> None:
    """Each due time of a heartbeat since the start has an outcome, or is at work, and `why` says which."""
    beat = next(rule for rule in soak_rules().rules if rule.id == "soak-heartbeat")  # every 10 s, as `beat` is
    timing = beat.timing
    assert timing is not None
    life.wait_for("beat", "Completed", count=3)
    since = datetime.fromisoformat(life.up["started_at"]).astimezone(UTC)
    until = since + timedelta(minutes=1)

    def verdicts() -> dict[str, str] | None:
        found = {
            due.isoformat(): life.gateway("/api/v1/proactive/why", rule="beat", at=due.isoformat())["verdict"]
            for due in due_between(timing, since, until, 100)
        }
        return found if set(found.values()) <= PAST else None

    found = wait_until_sync(verdicts, what="every due time has an outcome", timeout=180, every=2)
    assert found is not None
    assert len(found) == 6


def test_phase_5_switches_gate_and_troubleshooting_are_documented() -> None:
    """The runbook has the switches, the gate and what to do when something stands still."""
    page = (ROOT / "docs/runbook.md").read_text()
    for word in ("PROACTIVE_PUSH_ENABLED", "PROACTIVE_EVENT_PROJECTION_ENABLED", "proactive soak", "Troubleshooting"):
        assert word in page
