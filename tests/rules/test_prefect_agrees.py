"""Prefect's scheduler is who fires, so what we say is due must be what a real server creates."""

from __future__ import annotations

from collections import defaultdict
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any
from uuid import uuid4

import pytest

from proactive_prefect.prefect_api.client import connect
from proactive_prefect.rules import CronTiming, IntervalTiming, due_between
from proactive_prefect.rules.models import CronRule, HeartbeatRule
from proactive_prefect.rules.timing import Timing
from proactive_prefect.settings import Settings

pytestmark = pytest.mark.usefixtures("prefect_server")

# The middle of each window is a change of the clock in that zone; Tokyo has none.
CHANGES = {
    "New York, gap": ("America/New_York", "2027-03-14T07:00:00+00:00"),
    "New York, overlap": ("America/New_York", "2027-11-07T06:00:00+00:00"),
    "Berlin, gap": ("Europe/Berlin", "2027-03-28T01:00:00+00:00"),
    "Berlin, overlap": ("Europe/Berlin", "2027-10-31T01:00:00+00:00"),
    "Lord Howe, gap of 30 minutes": ("Australia/Lord_Howe", "2027-10-02T15:30:00+00:00"),
    "Lord Howe, overlap of 30 minutes": ("Australia/Lord_Howe", "2027-04-03T15:00:00+00:00"),
    "Tokyo, no change": ("Asia/Tokyo", "2027-03-28T01:00:00+00:00"),
    "in the past": ("America/New_York", "2021-03-14T07:00:00+00:00"),
}
CRONS = (
    "30 2 * * *",
    "45 1 * * *",
    "15 1-3 * * *",
    "10,59 1-2 * * *",
    "5,20,35,50 2 * * *",
    "0 * * * *",
    "*/30 * * * *",
    "@daily",
)
INTERVALS = ("5h", "1d", "36h", "2d12h")


def cron_rule(expression: str, timezone: str, **keys: Any) -> CronRule:
    return CronRule.model_validate(
        {"id": "nightly", "cron": expression, "timezone": timezone, "action": {"type": "command", "argv": ["true"]}}
        | keys
    )


def heartbeat_rule(every: str, timezone: str, **keys: Any) -> HeartbeatRule:
    return HeartbeatRule.model_validate(
        {"id": "beat", "every": every, "timezone": timezone, "action": {"type": "command", "argv": ["true"]}} | keys
    )


def as_prefect_is_told(timing: Timing) -> dict[str, Any]:
    if isinstance(timing, CronTiming):
        return {"cron": timing.prefect_cron, "timezone": timing.timezone}
    assert isinstance(timing, IntervalTiming)
    return {
        "interval": timing.every.total_seconds(),
        "anchor_date": timing.prefect_anchor.isoformat(),
        "timezone": timing.timezone,
    }


async def prefect_creates(timings: dict[str, Timing], since: datetime, until: datetime) -> dict[str, list[datetime]]:
    """When a deployment with a schedule for each of `timings` gets its runs in a window, by a real server."""
    schedules = [
        {"slug": f"s{index}", "active": True, "schedule": as_prefect_is_told(timing)}
        for index, timing in enumerate(timings.values())
    ]
    window = {"start_time": since.isoformat(), "end_time": (until - timedelta(seconds=1)).isoformat()}
    created: dict[str, list[datetime]] = defaultdict(list)
    async with connect(Settings(api_patience=240)) as api:
        flow = await api.post("/flows/", {"name": f"due-{uuid4().hex}"})
        deployment = await api.post(
            "/deployments/", {"name": "due", "flow_id": flow["id"], "paused": True, "schedules": schedules}
        )
        await api.post(f"/deployments/{deployment['id']}/schedule", {**window, "min_runs": 1000, "max_runs": 1000})
        wanted = {"deployments": {"id": {"any_": [deployment["id"]]}}, "sort": "EXPECTED_START_TIME_ASC"}
        offset = 0
        while runs := await api.post("/flow_runs/filter", {**wanted, "offset": offset}):
            offset += len(runs)
            for run in runs:
                created[run["created_by"]["display_value"]].append(datetime.fromisoformat(run["expected_start_time"]))
    return {name: created[f"s{index}"] for index, name in enumerate(timings)}


@pytest.mark.parametrize("change", CHANGES)
async def test_cron_times_around_a_clock_change_are_those_that_prefect_creates(change: str) -> None:
    """What `next` and `plan` show for a cron rule is what fires, also when the clocks change."""
    timezone, middle = CHANGES[change]
    since, until = (datetime.fromisoformat(middle) + timedelta(hours=hours) for hours in (-6, 6))
    timings = {expression: cron_rule(expression, timezone).timing for expression in CRONS}
    ours = {name: due_between(timing, since, until, 1000) for name, timing in timings.items()}
    assert ours == await prefect_creates(timings, since, until)
    assert ours["*/30 * * * *"]


@pytest.mark.parametrize("change", CHANGES)
async def test_intervals_around_a_clock_change_are_those_that_prefect_creates(change: str) -> None:
    """An interval is elapsed time, in any timezone and over any change of its clock, also for days."""
    timezone, middle = CHANGES[change]
    since, until = (datetime.fromisoformat(middle) + timedelta(days=days) for days in (-3, 3))
    timings = {every: heartbeat_rule(every, timezone).timing for every in INTERVALS}
    ours = {name: due_between(timing, since, until, 1000) for name, timing in timings.items()}
    assert ours == await prefect_creates(timings, since, until)
    for due in ours.values():
        assert len({later - earlier for earlier, later in pairwise(due)}) == 1


async def test_days_of_an_interval_do_not_depend_on_where_prefect_looks_from() -> None:
    """Looking from before and from after a clock change gives the same instants: no run twice, none lost."""
    timing = heartbeat_rule("1d", "America/New_York", anchor="2026-12-01T06:30:00Z").timing
    until = datetime(2027, 3, 20, tzinfo=UTC)
    before = (await prefect_creates({"daily": timing}, datetime(2027, 3, 10, tzinfo=UTC), until))["daily"]
    after = (await prefect_creates({"daily": timing}, datetime(2027, 3, 16, tzinfo=UTC), until))["daily"]
    assert before[-len(after) :] == after
    assert before == due_between(timing, datetime(2027, 3, 10, tzinfo=UTC), until, 100)


async def test_splays_are_part_of_what_prefect_schedules() -> None:
    """A splay moves a rule's every start by the same amount, and Prefect itself knows it."""
    since, until = datetime(2027, 3, 14, tzinfo=UTC), datetime(2027, 3, 16, tzinfo=UTC)
    timings = {
        "cron": cron_rule("30 */6 * * *", "America/New_York", splay="59s").timing,
        "interval": heartbeat_rule("6h", "UTC", splay="2h").timing,
        "fractions": heartbeat_rule("4h30.5s", "UTC", anchor="2027-03-01T00:00:00.250+02:00").timing,
    }
    ours = {name: due_between(timing, since, until, 100) for name, timing in timings.items()}
    assert ours == await prefect_creates(timings, since, until)
    assert {due.second for due in ours["cron"]} != {0}
    assert ours["interval"][0] - since != timedelta(0)


async def test_each_form_of_cron_means_the_same_to_prefect() -> None:
    """Names, ranges, lists, steps, last days and nth weekdays: what `check` accepts, Prefect fires alike."""
    expressions = (
        "0 9 * JAN MON-FRI",
        "0 9 * feb fri-sun",
        "0 9 * 2 sat-mon",
        "0 22-2/2 1 * *",
        "0 9 l * *",
        "0 9 * * mon#1",
        "0 9 * * L5",
        "0 9 1,15 * mon",
        "0 9 1,11,21 * *",
        "0 0 1 jan-mar,dec *",
        "0 0 29 2 *",
        "0 0 */7 feb mon",
        "5/20 4 2-3 * *",
        "@weekly",
        "@monthly",
        "@yearly",
        "0 9 * 1 1-7/2",
    )
    since, until = datetime(2027, 12, 28, tzinfo=UTC), datetime(2028, 3, 3, tzinfo=UTC)
    timings = {expression: cron_rule(expression, "Europe/Berlin").timing for expression in expressions}
    ours = {name: due_between(timing, since, until, 1000) for name, timing in timings.items()}
    assert ours == await prefect_creates(timings, since, until)
    assert all(ours.values())
