"""No apply, however ill-timed, loses an occurrence or makes it twice."""

from __future__ import annotations

import asyncio
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from proactive_prefect.rules.timing import due_between
from tests.support import wait_until

from .conftest import Workshop, heartbeat

TWO_MINUTES = timedelta(seconds=120)
FAST = {"min_interval": "1s"}


async def due_times(workshop: Workshop, deployment_id: str, since: datetime, until: datetime) -> Counter[datetime]:
    """How many runs Prefect has for each due time from `since` up to `until`."""
    found: list[dict[str, Any]] = []
    while True:
        page = await workshop.api.post(
            "/flow_runs/filter",
            {
                "deployments": {"id": {"any_": [deployment_id]}},
                "flow_runs": {"expected_start_time": {"after_": since.isoformat(), "before_": until.isoformat()}},
                "limit": 200,
                "offset": len(found),
            },
        )
        found += page
        if len(page) < 200:
            break
    times = Counter(datetime.fromisoformat(run["expected_start_time"]) for run in found)
    return Counter({due: count for due, count in times.items() if since <= due < until})


@pytest.mark.slow
@pytest.mark.timeout(400)
async def test_applying_twice_a_second_loses_and_doubles_nothing(workshop: Workshop) -> None:
    """Two edits a second for two minutes, of a rule that is due every ten seconds: each due time has one run."""
    await workshop.apply(heartbeat("tick", "10s"), **FAST)
    tick = await workshop.deployed("tick")
    began = datetime.now(UTC)
    edits = 0
    slowest = timedelta()
    while (now := datetime.now(UTC)) < began + TWO_MINUTES:
        edits += 1
        keys = {"description": f"edit {edits}", "timeout": f"{10 + edits % 7}s", "tags": [f"t{edits % 3}"]}
        await workshop.apply(heartbeat("tick", "10s", **keys), **FAST)
        slowest = max(slowest, datetime.now(UTC) - now)
        rest = now + timedelta(seconds=0.5) - datetime.now(UTC)
        pause = asyncio.sleep(max(0.0, rest.total_seconds()))  # the beat of the test: two a second
        await pause
    ended = datetime.now(UTC)
    print(f"{edits} edits in {ended - began}; the slowest took {slowest}")
    spec = workshop.specs(heartbeat("tick", "10s"), **FAST)[0]
    assert spec.rule.timing is not None
    expected = due_between(spec.rule.timing, began, ended, 1000)
    assert len(expected) >= 12
    assert await due_times(workshop, tick.id, began, ended) == Counter(dict.fromkeys(expected, 1))
    after = await workshop.deployed("tick")
    assert after.schedule is not None
    assert tick.schedule is not None
    assert after.schedule["id"] == tick.schedule["id"]


async def test_an_edit_changes_the_runs_that_are_made_already(workshop: Workshop) -> None:
    """The next run has the rule as it was applied last, also when Prefect had made it before."""
    await workshop.apply(heartbeat("tick", "10m", description="one"))
    tick = await workshop.deployed("tick")

    async def coming() -> list[Any]:
        found: list[Any] = await workshop.api.post(
            "/flow_runs/filter", {"deployments": {"id": {"any_": [tick.id]}}, "sort": "EXPECTED_START_TIME_ASC"}
        )
        return found

    before: list[Any] = await wait_until(coming, what="Prefect made runs of a new rule")
    await workshop.apply(heartbeat("tick", "10m", description="two"))
    after = await coming()
    assert after[0]["expected_start_time"] == before[0]["expected_start_time"]
    assert all('"two"' in run["parameters"]["rule"] for run in after)


async def test_a_new_schedule_has_its_runs_at_once(workshop: Workshop) -> None:
    """After an edit of the schedule its coming runs are there when `apply` returns, and none of the old schedule."""
    await workshop.apply(heartbeat("tick", "7m"))
    tick = await workshop.deployed("tick")
    await workshop.apply(heartbeat("tick", "11m"))
    now = datetime.now(UTC)
    spec = workshop.specs(heartbeat("tick", "11m"))[0]
    assert spec.rule.timing is not None
    until = now + timedelta(minutes=50)
    expected = due_between(spec.rule.timing, now, until, 100)
    assert await due_times(workshop, tick.id, now, until) == Counter(dict.fromkeys(expected, 1))
    after = await workshop.deployed("tick")
    assert after.schedule is not None
    assert tick.schedule is not None
    assert after.schedule["id"] == tick.schedule["id"]
