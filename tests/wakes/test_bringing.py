"""Wakes brought to runs of a real Prefect server: a run now, or the reason on the next run."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import uuid4

import pytest
from prefect.states import Cancelled, Completed, Running

from proactive_prefect.deploy.apply import apply_plan
from proactive_prefect.deploy.compile import Project, compile_rules
from proactive_prefect.deploy.plan import make_plan
from proactive_prefect.firing.gate import Hold, Skip
from proactive_prefect.firing.outcome import missed, skipped
from proactive_prefect.ledger.db import Ledger, open_ledger
from proactive_prefect.ledger.reconcile import reconcile
from proactive_prefect.ledger.tables import Wake
from proactive_prefect.ledger.wakes import Mode, ask, waiting
from proactive_prefect.prefect_api import PrefectApi, connect
from proactive_prefect.prefect_api.runs import FlowRun, recent_runs, set_state
from proactive_prefect.prefect_api.wakes import next_run, wakes_of
from proactive_prefect.rules.models import Rulebook
from proactive_prefect.settings import Settings
from proactive_prefect.wakes.wake import keep_waking

from ..conftest import Server
from ..support import wait_until


class Waking:
    """A heartbeat that is deployed, a ledger that knows it, and the keeper of its wakes at work."""

    def __init__(self, api: PrefectApi, ledger: Ledger, settings: Settings, rule_id: str, deployment: str) -> None:
        self.api, self.ledger, self.rule_id, self.deployment = api, ledger, rule_id, deployment
        self._settings = settings

    async def look(self) -> None:
        """Let the account catch up with Prefect, as the feed does."""
        await reconcile(self.api, self.ledger, self._settings)

    async def ask(self, reason: str, mode: Mode = "next") -> None:
        async with self.ledger.write() as session:
            assert await ask(session, key=str(uuid4()), mode=mode, reason=reason, by="operator", rule_id=self.rule_id)

    async def wakes(self) -> Sequence[Wake]:
        async with self.ledger.read() as session:
            return [wake for wake, _ in await waiting(session)]

    async def carried(self, *reasons: str) -> FlowRun:
        """The next run, as soon as it carries these reasons."""

        async def told() -> FlowRun | None:
            run = await next_run(self.api, self.deployment)
            return run if run is not None and wakes_of(run) == reasons else None

        found = await wait_until(told, what=f"the next run is told {reasons}", timeout=30)
        assert found is not None
        return found

    async def ran(self, run: FlowRun) -> None:
        """Let the run begin and end, although its time has not come: Prefect would have it wait."""
        for state in (Running(), Completed()):
            await set_state(self.api, run.id, state, force=True)

    async def delivered(self) -> None:
        async def none_waits() -> bool:
            await self.look()
            return not await self.wakes()

        await wait_until(none_waits, what="no wake waits", timeout=60, every=1)


@pytest.fixture
async def waking(prefect_server: Server, tmp_path: Path) -> AsyncIterator[Waking]:
    rule_id = f"wake-{uuid4().hex[:8]}"
    rule = {"kind": "heartbeat", "id": rule_id, "every": "5m", "action": {"type": "command", "argv": ["true"]}}
    book = Rulebook.model_validate({"proactive": {"enabled": True}, "rules": [rule]})
    project = Project(f"project-{rule_id}", tmp_path, f"pool-{rule_id}")
    settings = Settings(home=tmp_path)
    async with connect() as api, open_ledger(settings) as ledger:
        await apply_plan(api, await make_plan(api, compile_rules(book, project), project))
        await reconcile(api, ledger, settings)
        [deployment] = await api.post("/deployments/filter", {"deployments": {"name": {"any_": [rule_id]}}})
        stop = asyncio.Event()
        keeper = asyncio.create_task(keep_waking(api, ledger, stop))
        try:
            yield Waking(api, ledger, settings, rule_id, deployment["id"])
        finally:
            stop.set()
            await keeper
            await api.delete(f"/deployments/{deployment['id']}")


async def test_next_is_told_to_the_next_run_and_done_when_that_began(waking: Waking) -> None:
    """Reasons gather on the next run; they are kept until it has begun, and then gone."""
    await waking.ask("first")
    await waking.carried("first")
    await waking.ask("second")
    run = await waking.carried("first", "second")
    assert len(await waking.wakes()) == 2
    await waking.ran(run)
    await waking.delivered()


async def test_a_skipped_run_hands_its_wakes_to_the_next(waking: Waking) -> None:
    """Nothing is lost when the gate skips the run that was told."""
    await waking.ask("important")
    run = await waking.carried("important")
    await set_state(waking.api, run.id, skipped(Skip("overlap", "busy")))
    await waking.look()
    again = await waking.carried("important")
    assert again.id != run.id


async def test_a_run_that_the_gate_held_and_that_was_dropped_hands_its_wakes_to_the_next(waking: Waking) -> None:
    """It was Running for the gate alone: no action was told the reason."""
    await waking.ask("important")
    run = await waking.carried("important")
    for state in (Running(), missed(Hold("late")), Cancelled()):
        await set_state(waking.api, run.id, state, force=True)
    await waking.look()
    again = await waking.carried("important")
    assert again.id != run.id


async def test_a_deleted_run_hands_its_wakes_to_the_next(waking: Waking) -> None:
    """A redeploy deletes the coming runs: the reason goes to one that is there."""
    await waking.ask("still there")
    run = await waking.carried("still there")
    await waking.api.delete(f"/flow_runs/{run.id}")
    again = await waking.carried("still there")
    assert again.id != run.id


async def test_now_makes_one_run_at_once(waking: Waking) -> None:
    """It is due now, carries the reasons that wait, and nothing else is made."""
    await waking.ask("right now", "now")

    async def made() -> FlowRun | None:
        body = {"deployments": {"id": {"any_": [waking.deployment]}}}
        runs = [FlowRun.model_validate(run) for run in await waking.api.post("/flow_runs/filter", body)]
        return next((run for run in runs if not run.auto_scheduled), None)

    run = await wait_until(made, what="a run for now", timeout=30)
    assert run is not None
    assert wakes_of(run) == ("right now",)
    assert run.expected_start_time is not None
    assert abs(datetime.now(UTC) - run.expected_start_time) < timedelta(minutes=1)
    await waking.ran(run)
    await waking.delivered()
    assert [one.id for one in await recent_runs(waking.api, waking.deployment)] == [run.id]
