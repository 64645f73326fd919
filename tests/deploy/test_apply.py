"""`apply` makes the least change, and none where there is nothing to change."""

from __future__ import annotations

from .conftest import Workshop, heartbeat


async def test_rules_become_deployments_with_their_schedule(workshop: Workshop) -> None:
    """Each rule is a deployment named by its id, of the flow of its kind, with one schedule and our labels."""
    await workshop.apply(
        heartbeat("disk", "5m", priority="high"),
        {"kind": "cron", "id": "report", "cron": "0 9 * * mon-fri", "timezone": "Europe/Berlin"},
        {"kind": "webhook", "id": "push"},
    )
    disk, report, push = [await workshop.deployed(name) for name in ("disk", "report", "push")]
    assert [found.flow_name for found in (disk, report, push)] == ["heartbeat", "cron", "webhook"]
    assert disk.schedule is not None
    assert disk.schedule["schedule"] == {"interval": 300.0, "anchor_date": "2020-01-01T00:00:00Z", "timezone": "UTC"}
    assert report.schedule is not None
    assert report.schedule["schedule"]["timezone"] == "Europe/Berlin"
    assert push.schedule is None
    assert disk.data["work_queue_name"] == "high"
    assert disk.data["labels"]["proactive.rule"] == "disk"


async def test_a_second_apply_writes_nothing(workshop: Workshop) -> None:
    """Applying the same rules again makes no writing request at all."""
    rules = [
        heartbeat("disk", "5m", on_overlap="allow", splay="2m", tags=["a", "b"]),
        {"kind": "cron", "id": "report", "cron": "@daily", "timezone": "Australia/Lord_Howe"},
        {
            "kind": "skill",
            "id": "once",
            "skill": "tidy",
            "schedule": {"type": "once", "at": "2031-05-01T09:00:00+02:00"},
        },
        {"kind": "webhook", "id": "push", "description": "says {{ hello }}"},
    ]
    await workshop.apply(*rules)
    workshop.writes.clear()
    plan = await workshop.apply(*rules)
    assert not plan.differs, [str(change.shown) for change in plan.changed]
    assert plan.unchanged == 4
    assert workshop.writes == []
