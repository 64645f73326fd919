"""The gate with facts from a real server: in runs executed by Prefect's engine, and before them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from prefect.client.schemas.objects import State, StateType
from prefect.client.schemas.responses import SetStateStatus
from prefect.states import Completed, Pending, Running

from proactive_prefect.firing.facts import gather, occurrence_of
from proactive_prefect.firing.gate import Run, Skip, decide
from proactive_prefect.firing.outcome import skipped
from proactive_prefect.firing.pregate import pregate
from proactive_prefect.prefect_api.deployments import deployed_rules
from proactive_prefect.prefect_api.fence import Fence
from proactive_prefect.prefect_api.runs import cancel_run, read_run, set_state
from proactive_prefect.rules.models import RuleBase

from ..conftest import Server
from .stock import StockProject, make_folder, stock_project


@pytest.fixture
async def stock(prefect_server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[StockProject]:
    """A project whose runs are executed here."""
    make_folder(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    async with stock_project(prefect_server, tmp_path, f"pool-{tmp_path.name}"[:60]) as project:
        yield project


QUIET = {"type": "python", "call": "stock_actions:quiet_async"}
WORK = {"type": "python", "call": "stock_actions:work_async", "config": {"seconds": 5}}


def rarely(rule_id: str, **keys: Any) -> dict[str, Any]:
    """A heartbeat that will not be due by itself while the test runs."""
    return {"kind": "heartbeat", "id": rule_id, "every": "9d", "action": QUIET, **keys}


def ago(**parts: float) -> datetime:
    return datetime.now(UTC).replace(microsecond=0) - timedelta(**parts)


async def rule_of(stock: StockProject, rule_id: str) -> RuleBase:
    return next(found.rule for found in await deployed_rules(stock.api) if found.rule.id == rule_id)


async def test_a_skipped_run_says_why(stock: StockProject) -> None:
    """A run that must not run ends as Skipped, of type Cancelled, with code and reason; the action never began."""
    await stock.apply(rarely("off", enabled=False))
    _, state = await stock.fire("off")
    assert (state.name, state.type) == ("Skipped", "CANCELLED")
    assert state.message == "disabled: the rule or its project is switched off (enabled = false)"
    assert stock.lines("quiet") == []


async def test_a_missed_run_waits_for_somebody_and_runs_when_resumed(stock: StockProject) -> None:
    """Two hours late: held as Missed. Resume, as Prefect's UI does it: it runs, with the time it was due at."""
    await stock.apply(rarely("nightly"))
    due = ago(hours=2)
    run = await stock.make_scheduled("nightly", due)
    state = await stock.execute(run)
    assert (state.name, state.type) == ("Missed", "PAUSED")
    assert state.message is not None
    assert "found 2h" in state.message
    assert stock.lines("quiet") == []

    answer = await stock.api.post(f"/flow_runs/{run.id}/resume", {})
    assert answer["state"]["name"] == "Resuming"
    resumed = await read_run(stock.api, run.id)
    assert resumed.expected_start_time == due
    assert (await stock.execute(resumed)).name == "Quiet"
    assert len(stock.lines("quiet-nightly")) == 1


async def test_a_missed_run_that_is_cancelled_is_gone(stock: StockProject) -> None:
    """Cancel on a Missed run ends it at once; it stands in no later run's way."""
    await stock.apply(rarely("nightly2", cooldown="1h", max_runs=1))
    run = await stock.make_scheduled("nightly2", ago(hours=2))
    assert (await stock.execute(run)).name == "Missed"
    assert await cancel_run(stock.api, run.id)
    state = (await read_run(stock.api, run.id)).state
    assert state is not None
    assert (state.name, state.type) == ("Cancelled", "CANCELLED")
    later = await stock.make_scheduled("nightly2", ago(seconds=10))
    assert (await stock.execute(later)).name == "Quiet"


async def test_of_runs_that_start_together_one_runs(stock: StockProject) -> None:
    """Four runs of a rule that skips overlaps, started at once: one does the work, three say which one does."""
    await stock.apply(rarely("busy", action=WORK, timeout="60s"))
    runs = [await stock.trigger("busy") for _ in range(4)]
    states = await asyncio.gather(*(stock.execute(run) for run in runs))
    assert sorted(state.name or "" for state in states) == ["Quiet", "Skipped", "Skipped", "Skipped"]
    assert len(stock.lines("began")) == 1
    [winner] = [run for run, state in zip(runs, states, strict=True) if state.name == "Quiet"]
    assert {str(winner.id) in str(state.message) for state in states if state.name == "Skipped"} == {True}


async def test_of_two_runs_for_one_due_time_one_runs(stock: StockProject) -> None:
    """A redeploy by other means makes a second run for the same instant: it is skipped as a duplicate."""
    await stock.apply(rarely("twice", on_overlap="allow"))
    due = ago(seconds=5)
    twins = [await stock.make_scheduled("twice", due), await stock.make_scheduled("twice", due)]
    states = await asyncio.gather(*(stock.execute(run) for run in twins))
    assert sorted(state.name or "" for state in states) == ["Quiet", "Skipped"]
    [skipped] = [state for state in states if state.name == "Skipped"]
    assert str(skipped.message).startswith("duplicate: ")
    assert len(stock.lines("quiet-twice")) == 1


async def test_a_rule_runs_as_often_as_it_may(stock: StockProject) -> None:
    """max_runs = 2: the third is skipped; runs that were skipped or cancelled before their start do not count."""
    await stock.apply({"id": "few", "action": QUIET, "max_runs": 2, "on_overlap": "allow"})
    never = await stock.trigger("few", cause="webhook")
    await cancel_run(stock.api, never.id)
    names = [(await stock.fire("few", cause="webhook"))[1].name for _ in range(3)]
    assert names == ["Quiet", "Quiet", "Skipped"]


async def test_cooldown_counts_from_the_last_real_run(stock: StockProject) -> None:
    """The second call within the cooldown is skipped, run-now is not."""
    await stock.apply({"id": "calm", "action": QUIET, "cooldown": "1h"})
    states = [(await stock.fire("calm", cause=cause))[1] for cause in ("webhook", "webhook", "manual")]
    assert [state.name for state in states] == ["Quiet", "Skipped", "Quiet"]
    assert str(states[1].message).startswith("cooldown: ")


@pytest.mark.parametrize("last", ["ran", "works"])
async def test_many_skipped_runs_hide_nothing(stock: StockProject, last: str) -> None:
    """The one run that counts, behind more skipped ones than Prefect gives at a time."""
    await stock.apply(rarely("rare", cooldown="9h"))
    rule = await rule_of(stock, "rare")
    first = await stock.trigger("rare", cause="webhook")
    await set_state(stock.api, first.id, Running())
    if last == "ran":
        await set_state(stock.api, first.id, Completed())
    for _ in range(201):
        await stock.trigger("rare", cause="webhook", state=skipped(Skip("cooldown", "it rests")))
    run = await stock.trigger("rare", cause="webhook")
    decision = decide(rule, occurrence_of(run, rule), await gather(stock.api, rule, run))
    assert isinstance(decision, Skip)
    assert decision.code == {"ran": "cooldown", "works": "overlap"}[last]


async def test_the_projects_hook_says_whether_a_session_is_active(stock: StockProject) -> None:
    """session_active = true and a hook that says no: skipped; the hook was asked in the run itself."""
    given = {"conditions": {"session_active": True}, "session_hook": "stock_actions:no_session"}
    await stock.apply({"id": "desk", "action": QUIET, **given})
    _, state = await stock.fire("desk", cause="webhook")
    assert (state.name, state.message) == ("Skipped", "session_inactive: no session is active")
    assert len(stock.lines("asked-session")) == 1


async def test_the_worker_settles_what_must_not_start(stock: StockProject) -> None:
    """Before Pending: a skip and a missed run are settled, anything else is left to start; each is as a run's own."""
    await stock.apply(rarely("early", conditions={"custom": "due.year > 3000"}), rarely("late"), rarely("fine"))
    for rule_id, due, name in (("early", ago(seconds=1), "Skipped"), ("late", ago(hours=3), "Missed")):
        run = await stock.make_scheduled(rule_id, due)
        assert await pregate(stock.api, run, await rule_of(stock, rule_id))
        state = (await read_run(stock.api, run.id)).state
        assert state is not None
        assert state.name == name
    assert str((await stock.api.get(f"/flow_runs/{run.id}"))["state"]["message"]).startswith("missed: due ")

    fine = await stock.make_scheduled("fine", ago(seconds=1))
    assert not await pregate(stock.api, fine, await rule_of(stock, "fine"))
    assert (await stock.history(fine)) == ["Scheduled"]


@pytest.mark.parametrize("by", [Pending(), Running()], ids=["claimed", "running"])
async def test_the_worker_settles_nothing_that_another_has_claimed(stock: StockProject, by: State[None]) -> None:
    """Two workers looked, and their clocks decide otherwise: who has the run decides."""
    await stock.apply(rarely("early", conditions={"custom": "due.year > 3000"}))
    run = await stock.make_scheduled("early", ago(seconds=1))
    await set_state(stock.api, run.id, by)
    assert await pregate(stock.api, run, await rule_of(stock, "early"))
    assert (await stock.history(run))[-1] == by.name


async def test_a_skip_that_comes_after_another_worker_s_claim_is_refused(stock: StockProject) -> None:
    """The claim came between the worker's look and its telling."""
    await stock.apply(rarely("early", conditions={"custom": "due.year > 3000"}))
    run = await stock.make_scheduled("early", ago(seconds=1))
    fence = Fence(run)
    await set_state(stock.api, run.id, Pending(), transition=fence.of(StateType.PENDING))
    skip = skipped(Skip("custom", "too early"))
    answer = await set_state(stock.api, run.id, skip, transition=fence.of(skip.type))
    assert answer.status == SetStateStatus.REJECT
    assert (await stock.history(run))[-1] == "Pending"


async def test_a_run_that_the_worker_held_runs_when_resumed(stock: StockProject) -> None:
    """Held before it ever started, resumed by a person: neither the worker nor the run holds it again."""
    await stock.apply(rarely("held"))
    run = await stock.make_scheduled("held", ago(hours=3))
    rule = await rule_of(stock, "held")
    assert await pregate(stock.api, run, rule)
    await stock.api.post(f"/flow_runs/{run.id}/resume", {})
    resumed = await read_run(stock.api, run.id)
    assert not await pregate(stock.api, resumed, rule)
    assert (await stock.execute(resumed)).name == "Quiet"


@pytest.mark.parametrize(
    ("keys", "cause", "requests"),
    [
        ({}, "schedule", 1),
        ({"cooldown": "1h"}, "schedule", 1),
        ({"on_overlap": "allow"}, "webhook", 0),
        ({}, "webhook", 1),
    ],
)
async def test_the_gate_asks_once_at_most_in_the_common_case(
    stock: StockProject, keys: dict[str, Any], cause: str, requests: int
) -> None:
    """One request tells all that an ordinary rule needs, and none is made for what nobody asks."""
    await stock.apply(rarely("cheap", **keys))
    due = ago(seconds=1)
    run = (
        await stock.make_scheduled("cheap", due)
        if cause == "schedule"
        else await stock.trigger("cheap", cause="webhook")
    )
    rule = await rule_of(stock, "cheap")
    made: list[str] = []

    async def note(request: Any) -> None:
        made.append(str(request.url.path))

    stock.api.client._client.event_hooks["request"].append(note)
    facts = await gather(stock.api, rule, run)
    assert len(made) == requests, made
    assert facts.ran_before is None
    assert decide(rule, occurrence_of(run, rule), facts) == Run()


async def test_of_several_missed_only_the_latest_runs(stock: StockProject) -> None:
    """on_missed = "latest": the earlier ones are stale, in whatever order they come to the gate."""
    await stock.apply(rarely("backup", on_missed="latest", on_overlap="allow"))
    due = ago()
    runs = [await stock.make_scheduled("backup", due - timedelta(hours=hours)) for hours in (1, 3, 2)]
    states = [await stock.execute(run) for run in runs]
    assert [state.name for state in states] == ["Quiet", "Skipped", "Skipped"]
    assert all("runs instead" in str(state.message) for state in states[1:])


async def test_a_run_that_its_policy_lets_run_late_runs(stock: StockProject) -> None:
    """on_missed = "run": three hours late, it runs with its due time; "skip": it is stale."""
    await stock.apply(rarely("always", on_missed="run"), rarely("never", on_missed="skip"))
    states = [await stock.execute(await stock.make_scheduled(one, ago(hours=3))) for one in ("always", "never")]
    assert [state.name for state in states] == ["Quiet", "Skipped"]
    assert str(states[1].message).startswith("stale: due ")
