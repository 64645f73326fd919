"""`apply` makes the least change, and none where there is nothing to change."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest
from prefect.states import Pending

from proactive_prefect.deploy.apply import apply_plan
from proactive_prefect.deploy.compile import compile_rules
from proactive_prefect.deploy.plan import make_plan
from proactive_prefect.errors import InputError
from proactive_prefect.prefect_api.creating import create_run
from proactive_prefect.prefect_api.deployments import coming_runs, deployed_rules
from proactive_prefect.prefect_api.runs import read_run, set_state

from .conftest import Workshop, heartbeat, rulebook


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


async def test_an_id_is_unique_over_all_kinds(workshop: Workshop) -> None:
    """Within the project a rule may become one of another kind; beside another project's it is refused."""
    await workshop.apply(heartbeat("disk"))
    cron = {"kind": "cron", "id": "disk", "cron": "0 9 * * *"}
    other = replace(workshop.project, name=f"{workshop.project.name}-2")
    plan = await make_plan(workshop.api, compile_rules(rulebook(cron), other), other)
    (obstacle,) = plan.obstacles
    assert f"a heartbeat rule 'disk' already of the project '{workshop.project.name}'" in obstacle.message
    await workshop.apply(cron)
    assert [found.flow_name for found in await workshop.deployments()] == ["cron"]


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


async def test_an_edit_changes_in_place(workshop: Workshop) -> None:
    """An edit keeps the deployment's and the schedule's id, and makes one write for the fields and one for the runs."""
    await workshop.apply(heartbeat("disk", "1h"))
    before = await workshop.deployed("disk")
    workshop.writes.clear()
    await workshop.apply(heartbeat("disk", "1h", timeout="90s", priority="low", on_overlap="queue_one"))
    after = await workshop.deployed("disk")
    assert after.id == before.id
    assert after.schedule is not None
    assert before.schedule is not None
    assert after.schedule["id"] == before.schedule["id"]
    assert after.data["work_queue_name"] == "low"
    assert after.fields()["concurrency_limit"] == 1
    # Each once; a call that the server was too busy for is made again.
    assert list(dict.fromkeys(workshop.writes)) == [
        f"PATCH /api/deployments/{before.id}",
        f"POST /api/deployments/{before.id}/schedule",
    ]


async def test_a_removed_rule_is_deleted(workshop: Workshop) -> None:
    """What is no longer in the file is deleted; what is there still stays."""
    await workshop.apply(heartbeat("one"), heartbeat("two"))
    kept = await workshop.deployed("two")
    plan = await workshop.apply(heartbeat("two"))
    assert [found.name for found in plan.removed] == ["one"]
    assert [found.id for found in await workshop.deployments()] == [kept.id]


async def test_a_rule_of_another_kind_is_another_deployment(workshop: Workshop) -> None:
    """A rule that becomes a cron rule moves from heartbeat/… to cron/…."""
    await workshop.apply(heartbeat("disk"))
    await workshop.apply({"kind": "cron", "id": "disk", "cron": "0 * * * *"})
    assert [found.flow_name for found in await workshop.deployments()] == ["cron"]


async def test_what_others_made_is_never_touched(workshop: Workshop) -> None:
    """A deployment that this project did not make stays as it is; one of the same name stops `apply` before a write."""
    flow = await workshop.api.post("/flows/", {"name": "heartbeat"})
    theirs = await workshop.api.post("/deployments/", {"name": "theirs", "flow_id": flow["id"], "tags": ["proactive"]})
    try:
        await workshop.apply(heartbeat("mine"))
        await workshop.apply()
        workshop.writes.clear()
        with pytest.raises(InputError, match="heartbeat/theirs is there already") as refused:
            await workshop.apply(heartbeat("mine"), heartbeat("theirs"))
        assert "Rename the rule" in refused.value.hint
        assert workshop.writes == []
        now = await workshop.api.get(f"/deployments/{theirs['id']}")
        assert now["updated"] == theirs["updated"]
    finally:
        await workshop.api.delete(f"/deployments/{theirs['id']}")


async def test_a_rule_of_another_project_is_refused(workshop: Workshop) -> None:
    """Two projects on one server cannot take each other's rules: the second is told whose it is."""
    await workshop.apply(heartbeat("shared"))
    other = replace(workshop, project=replace(workshop.project, name="another"))
    with pytest.raises(InputError, match="belongs to the project"):
        await other.apply(heartbeat("shared"))
    plan = await other.plan()
    assert not plan.removed


async def test_a_pause_by_an_operator_stays(workshop: Workshop) -> None:
    """A deployment paused in Prefect stays paused through edits of its rule; switching it in the file ends that."""
    await workshop.apply(heartbeat("disk"))
    disk = await workshop.deployed("disk")
    await workshop.api.post(f"/deployments/{disk.id}/pause_deployment")
    assert not (await workshop.plan(heartbeat("disk"))).differs
    await workshop.apply(heartbeat("disk", timeout="5s"))
    assert (await workshop.deployed("disk")).paused
    await workshop.apply(heartbeat("disk", enabled=False))
    await workshop.apply(heartbeat("disk", enabled=True))
    after = await workshop.deployed("disk")
    assert not after.paused
    assert after.schedule is not None
    assert after.schedule["active"]


async def test_a_schedule_switched_off_by_an_operator_stays_off(workshop: Workshop) -> None:
    """A schedule made inactive in Prefect stays so through edits, also of the schedule itself."""
    await workshop.apply(heartbeat("disk"))
    disk = await workshop.deployed("disk")
    assert disk.schedule is not None
    await workshop.api.patch(f"/deployments/{disk.id}/schedules/{disk.schedule['id']}", {"active": False})
    assert not (await workshop.plan(heartbeat("disk"))).differs
    await workshop.apply(heartbeat("disk", "2h"))
    after = await workshop.deployed("disk")
    assert after.schedule is not None
    assert after.schedule["schedule"]["interval"] == 7200
    assert not after.schedule["active"]
    found = [rule for rule in await deployed_rules(workshop.api) if rule.deployment_id == disk.id]
    assert [(rule.paused, rule.active) for rule in found] == [(True, False)]


async def test_off_is_off_for_what_waits_already(workshop: Workshop) -> None:
    """What waits for a slot or was late knows the rule as it was; what has begun, and later times, are left alone."""
    await workshop.apply({"kind": "webhook", "id": "hook"}, heartbeat("disk", "1m"))
    hook, disk = await workshop.deployed("hook"), await workshop.deployed("disk")
    runs = [await create_run(workshop.api, hook.id, idempotency_key=f"{hook.id} {nth}") for nth in range(3)]
    await set_state(workshop.api, runs[0].id, Pending())
    late = await create_run(workshop.api, disk.id, idempotency_key=f"{disk.id} late")
    await workshop.apply({"kind": "webhook", "id": "hook", "enabled": False}, heartbeat("disk", "1m", enabled=False))
    found = [(await read_run(workshop.api, run.id)).state for run in (*runs, late)]
    assert [state and state.name for state in found] == ["Pending", "Skipped", "Skipped", "Skipped"]
    assert found[1] is not None
    assert str(found[1].message).startswith("disabled: ")
    await workshop.apply({"kind": "webhook", "id": "hook"}, heartbeat("disk", "1m"))
    coming = await coming_runs(workshop.api, disk.id, datetime.now(UTC))
    assert len(coming) > 10


async def test_nothing_fires_until_somebody_opts_in(workshop: Workshop) -> None:
    """With the project off every schedule is inactive and every run would be skipped; switching it on starts all."""
    await workshop.apply(heartbeat("disk"), enabled=False)
    off = await workshop.deployed("disk")
    assert off.schedule is not None
    assert not off.schedule["active"]
    assert off.snapshot is not None
    assert off.snapshot["enabled"] is False
    await workshop.apply(heartbeat("disk"))
    on = await workshop.deployed("disk")
    assert on.schedule is not None
    assert on.schedule["active"]
    assert on.schedule["id"] == off.schedule["id"]


async def test_a_schedule_that_an_operator_added_stays(workshop: Workshop) -> None:
    """A second schedule that somebody added in Prefect is not ours to touch."""
    await workshop.apply(heartbeat("disk"))
    disk = await workshop.deployed("disk")
    await workshop.api.post(f"/deployments/{disk.id}/schedules", [{"schedule": {"cron": "0 0 * * *"}, "active": False}])
    await workshop.apply(heartbeat("disk", "3h"))
    assert len((await workshop.deployed("disk")).data["schedules"]) == 2


@pytest.mark.slow
@pytest.mark.timeout(900)
async def test_two_hundred_rules_are_read_back_in_a_few_calls(workshop: Workshop) -> None:
    """200 rules are applied with a step of progress for each; the plan after that takes few requests, and no write."""
    rules = [heartbeat(f"many-{number:03}", f"{5 + number % 55}m") for number in range(200)]
    plan = await workshop.plan(*rules)
    steps: list[str] = []
    await apply_plan(workshop.api, plan, steps.append)
    assert len(steps) == plan.writes == 201  # the work pool is one
    workshop.writes.clear()
    workshop.reads.clear()
    again = await workshop.apply(*rules)
    assert again.unchanged == 200
    assert workshop.writes == []
    assert len(dict.fromkeys(workshop.reads)) <= 5
    assert len(workshop.reads) <= 12


async def test_an_apply_that_broke_off_is_completed_by_the_next(workshop: Workshop) -> None:
    """When Prefect goes away in the middle of an apply, the next one does the rest, and nothing twice."""
    rules = [heartbeat(f"rule-{n}") for n in range(6)]
    plan = await workshop.plan(*rules)
    done: list[str] = []

    def break_off(step: str) -> None:
        done.append(step)
        if len(done) == 3:
            raise ConnectionAbortedError

    with pytest.raises(ConnectionAbortedError):
        await apply_plan(workshop.api, plan, break_off)
    await workshop.apply(*rules)
    assert sorted(found.name for found in await workshop.deployments()) == sorted(rule["id"] for rule in rules)
    assert not (await workshop.plan(*rules)).differs
