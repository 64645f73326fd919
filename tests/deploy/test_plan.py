"""A plan says what would change and what the rules will do, in words that a person understands."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from rich.console import Console

from proactive_prefect.deploy.compile import DeploymentSpec
from proactive_prefect.deploy.diff import Change, compare
from proactive_prefect.deploy.forecast import forecast
from proactive_prefect.deploy.show import show_plan
from proactive_prefect.prefect_api.deployments import Deployment
from proactive_prefect.rules.models import from_snapshot

from .conftest import ACTION, Workshop, heartbeat, rulebook, specs_of

NOON = datetime(2027, 2, 1, 12, tzinfo=UTC)


def as_deployed(spec: DeploymentSpec, **changes: Any) -> Deployment:
    """What Prefect answers about a deployment made from `spec`."""
    schedules = []
    if spec.schedule is not None:
        schedules = [{"id": "s", "slug": "rule", "schedule": spec.schedule.schedule, "active": spec.schedule.active}]
    limit = spec.concurrency_limit
    data = spec.fields() | {
        "name": spec.name,
        "labels": dict(spec.labels),
        "paused": False,
        "schedules": schedules,
        "global_concurrency_limit": {"limit": limit} if limit else None,
    }
    return Deployment("d", spec.flow_name, data | changes)


def changed(before: dict[str, Any], after: dict[str, Any]) -> Change | None:
    return compare(specs_of(after)[0], as_deployed(specs_of(before)[0]))


def lines(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    change = changed(before, after)
    return [] if change is None else [str(shown) for shown in change.shown]


def test_equal_rules_compile_to_equal_deployments() -> None:
    """Compiling is pure: the same rules give the same specs, and another rule another one."""
    rules = [heartbeat("a"), {"kind": "webhook", "id": "b"}]
    assert specs_of(*rules) == specs_of(*rules)
    assert specs_of(heartbeat("a")) != specs_of(heartbeat("a", timeout="1s"))


def test_a_run_can_read_its_rule_back() -> None:
    """The parameters carry the rule whole, as text in which Prefect finds nothing to evaluate."""
    config = {"__prefect_kind": "workspace_variable", "$ref": "secret/x", "text": "{{ prefect.blocks.secret.x }}"}
    rule = heartbeat("a", action={**ACTION, "config": config})
    (spec,) = specs_of(rule)
    assert set(spec.parameters) == {"rule", "payload"}
    assert isinstance(spec.parameters["rule"], str)
    assert "{{" not in spec.parameters["rule"]
    assert from_snapshot(spec.parameters["rule"]) == rulebook(rule).rules[0]


@pytest.mark.parametrize(
    ("overlap", "limit"), [("skip", 2), ("cancel_running", 2), ("queue_one", 1), ("queue_all", 1), ("allow", None)]
)
def test_the_race_lock_follows_the_overlap_policy(overlap: str, limit: int | None) -> None:
    """Prefect's concurrency limit leaves room for the run that says why it is skipped; queues use Prefect's own."""
    (spec,) = specs_of(heartbeat("a", on_overlap=overlap))
    assert spec.concurrency_limit == limit
    assert spec.concurrency_options == ({"collision_strategy": "ENQUEUE"} if limit else None)


def test_an_edit_is_shown_key_by_key() -> None:
    """A change names the keys of the rule, before and after, and says nothing twice."""
    assert lines(heartbeat("a", "5m"), heartbeat("a", "10m")) == ["every: 5m → 10m"]
    assert lines(heartbeat("a"), heartbeat("a", priority="high", tags=["x"])) == [
        'tags: nothing → ["x"]',
        "priority: normal → high",
    ]
    hours = {"active_hours": {"start": "09:00", "end": "17:00"}}
    later = {"active_hours": {"start": "09:00", "end": "18:00"}}
    assert lines(heartbeat("a", conditions=hours), heartbeat("a", conditions=later)) == [
        "conditions.active_hours.end: 17:00 → 18:00"
    ]
    assert lines(heartbeat("a"), heartbeat("a")) == []


def test_what_somebody_changed_in_prefect_is_put_back() -> None:
    """A field that was edited in Prefect's UI is a difference like any other, under Prefect's name for it."""
    (spec,) = specs_of(heartbeat("a", "5m"))
    edited = as_deployed(spec, entrypoint="other.py:other", tags=["x"])
    change = compare(spec, edited)
    assert change is not None
    assert [shown.field for shown in change.shown] == ["entrypoint", "tags"]
    other = {"interval": 60.0, "anchor_date": "2020-01-01T00:00:00Z", "timezone": "UTC"}
    moved = as_deployed(spec, schedules=[{"id": "s", "slug": "rule", "schedule": other, "active": True}])
    change = compare(spec, moved)
    assert change is not None
    assert change.schedule
    assert change.fields == {}
    assert [str(shown) for shown in change.shown] == [
        "schedule: every 1m from 2020-01-01 00:00:00 (UTC) → every 5m from 2020-01-01 00:00:00 (UTC)"
    ]


def test_the_forecast_knows_the_clock_changes_that_meet_a_rule() -> None:
    """Only rules with a time inside the hour that is removed or repeated are named, each change in its zone."""
    rules = rulebook(
        {"kind": "cron", "id": "night", "cron": "30 2 * * *", "timezone": "Europe/Berlin"},
        {"kind": "cron", "id": "noon", "cron": "0 12 * * *", "timezone": "Europe/Berlin"},
        {"kind": "cron", "id": "lord", "cron": "45 1 * * *", "timezone": "Australia/Lord_Howe"},
        {"kind": "cron", "id": "still", "cron": "* * * * *", "timezone": "Asia/Kolkata"},
    ).rules
    seen = forecast(rules, NOON)
    assert [(w.timezone, w.change.kind, w.rules) for w in seen.clock_warnings] == [
        ("Australia/Lord_Howe", "overlap", ("lord",)),
        ("Europe/Berlin", "gap", ("night",)),
        ("Europe/Berlin", "overlap", ("night",)),
    ]


def test_the_forecast_counts_runs_and_finds_shared_minutes() -> None:
    """Runs a day are of enabled rules only; rules that are due in one minute are named together."""
    rules = rulebook(
        heartbeat("often", "5m"),
        heartbeat("off", "5m", enabled=False),
        {"kind": "cron", "id": "nine", "cron": "0 9 * * *", "timezone": "Europe/Berlin"},
        {"kind": "webhook", "id": "hook"},
    ).rules
    seen = forecast(rules, NOON)
    assert seen.runs_a_day == 289
    assert [(found.minute, found.rules) for found in seen.collisions] == [
        (datetime(2027, 2, 2, 8, tzinfo=UTC), ("often", "nine"))
    ]
    fires = {fire.rule_id: fire for fire in seen.fires}
    assert fires["often"].due == NOON + timedelta(minutes=5)
    assert fires["nine"].local is not None
    assert fires["nine"].local.isoformat() == "2027-02-02T09:00:00+01:00"
    assert fires["off"].due is fires["hook"].due is None


async def test_a_plan_is_readable_and_machine_readable(workshop: Workshop) -> None:
    """A plan names what is added, changed and removed, for people and as JSON, and writes nothing."""
    await workshop.apply(heartbeat("kept"), heartbeat("edited", "5m"), heartbeat("gone"))
    workshop.writes.clear()
    plan = await workshop.plan(heartbeat("kept"), heartbeat("edited", "10m"), heartbeat("new"))
    assert workshop.writes == []
    data = json.loads(json.dumps(plan.to_json()))
    assert data["differs"] is True
    assert data["added"] == ["heartbeat/new"]
    assert data["removed"] == ["heartbeat/gone"]
    assert data["unchanged"] == 1
    (change,) = data["changed"]
    assert change["fields"] == [{"field": "every", "before": "5m", "after": "10m"}]
    console = Console(width=120, file=io.StringIO())
    with console.capture() as captured:
        console.print(show_plan(plan))
    text = captured.get()
    assert "every: 5m → 10m" in text
    assert "1 to add, 1 to change, 1 to remove; 1 unchanged" in text
    assert replace(plan, added=(), changed=(), removed=()).differs is False
