"""When a rule will run next: the due times that the gate will let through, found without walking through all others."""

from __future__ import annotations

import json
import random
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from proactive_prefect.firing.foreseen import foreseen_skip, next_runs
from proactive_prefect.rules.conditions import unmet
from proactive_prefect.rules.models import Rule, from_snapshot
from proactive_prefect.rules.timing import due_between

NOW = datetime(2026, 3, 4, 10, 0, tzinfo=UTC)  # a Wednesday


def rule(**keys: Any) -> Rule:
    """A rule that is due hourly, in UTC, unless said otherwise."""
    given = {"id": "tidy", "action": {"type": "python", "call": "a:b"}, "kind": "cron", "cron": "0 * * * *", **keys}
    return from_snapshot(json.dumps(given))


@pytest.mark.parametrize(
    ("keys", "first"),
    [
        ({}, "2026-03-04T11:00Z"),
        ({"conditions": {"active_hours": {"start": "20:00", "end": "22:00"}}}, "2026-03-04T20:00Z"),
        ({"conditions": {"active_hours": {"start": "08:00", "end": "10:00"}}}, "2026-03-05T08:00Z"),
        (
            {"conditions": {"active_hours": {"start": "08:00", "end": "10:00", "timezone": "Asia/Tokyo"}}},
            "2026-03-04T23:00Z",
        ),
        ({"conditions": {"days_of_week": ["mon"]}}, "2026-03-09T00:00Z"),
        ({"conditions": {"days_of_week": ["mon"]}, "timezone": "America/New_York"}, "2026-03-09T04:00Z"),
        ({"conditions": {"exclude_dates": ["2026-03-04", "2026-03-05"]}}, "2026-03-06T00:00Z"),
        ({"conditions": {"holidays": "DE"}, "cron": "0 9 3 4 *"}, "2027-04-03T09:00Z"),  # in 2026 it is Good Friday
        ({"conditions": {"custom": "due.day == 6"}}, "2026-03-06T00:00Z"),
        ({"conditions": {"environment": ["production"]}}, None),
        ({"conditions": {"session_active": True}, "session_hook": "a:b"}, "2026-03-04T11:00Z"),  # nobody knows before
        ({"conditions": {"custom": "false"}}, None),
        ({"start_at": "2026-07-01T00:00:00+00:00"}, "2026-07-01T00:00Z"),
        ({"end_at": "2026-03-04T11:00:00+00:00"}, None),
        ({"enabled": False}, None),
    ],
)
def test_the_next_run_is_the_first_that_the_gate_will_let_through(keys: dict[str, Any], first: str | None) -> None:
    expected = [] if first is None else [datetime.fromisoformat(first)]
    assert next_runs(rule(**keys), NOW, 1) == expected


def test_a_skip_is_told_as_the_gate_will_tell_it() -> None:
    at_night = rule(conditions={"active_hours": {"start": "08:00", "end": "18:00"}})
    assert str(foreseen_skip(at_night, NOW.replace(hour=19))) == (
        "outside_active_hours: 19:00 is not between 08:00 and 18:00 UTC"
    )
    assert foreseen_skip(at_night, NOW) is None


@pytest.mark.parametrize("seed", range(150))
def test_it_finds_what_a_walk_through_all_due_times_finds(seed: int) -> None:
    """No run is passed over, none is told that will be skipped: any conditions, also where clocks change."""
    chance = random.Random(seed)
    zones = ["UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Pacific/Apia"]
    hours = [f"{chance.randrange(24):02}:{chance.choice((0, 15, 30)):02}" for _ in range(2)]
    conditions: dict[str, Any] = {}
    if chance.random() < 0.7:
        conditions["active_hours"] = {"start": hours[0], "end": hours[1]}
        if chance.random() < 0.5:
            conditions["active_hours"]["timezone"] = chance.choice(zones)
    if chance.random() < 0.5:
        conditions["days_of_week"] = chance.sample(["mon", "tue", "wed", "thu", "fri", "sat", "sun"], 2)
    if chance.random() < 0.3:
        conditions["exclude_dates"] = [f"2026-03-{chance.randrange(1, 32):02}" for _ in range(5)]
    timing = chance.choice(
        (
            {"kind": "cron", "cron": chance.choice(("*/20 * * * *", "30 2 * * *", "7 */3 * * *"))},
            {"kind": "heartbeat", "every": "25m"},
        )
    )
    base = {"id": "tidy", "action": {"type": "python", "call": "a:b"}, "timezone": chance.choice(zones)}
    made = from_snapshot(json.dumps({**base, **timing, "conditions": conditions}))
    since = chance.choice((datetime(2026, 3, 7, tzinfo=UTC), datetime(2026, 3, 27, 20, tzinfo=UTC), NOW))
    until = since + timedelta(days=12)
    assert made.timing is not None
    walked = [due for due in due_between(made.timing, since, until, 100_000) if unmet(made, due) is None]
    found = next_runs(made, since - timedelta(microseconds=1), len(walked) + 1)
    assert [due for due in found if due < until] == walked
