"""Rules on what every user of Prefect has: its process worker, and `serve()`."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from prefect.states import Cancelling

from proactive_prefect.prefect_api.runs import cancel_run, create_run, read_run, set_state
from proactive_prefect.rules.models import WebhookRule, to_snapshot

from ..conftest import Server, stop
from ..support import wait_until
from .stock import ROOT, StockProject, Worker, make_folder, process_worker, stock_project

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
PATIENCE = 240.0  # seconds; a process worker starts two interpreters for each run


@pytest.fixture(scope="module")
def worker(prefect_server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    """Prefect's own process worker."""
    with process_worker(prefect_server, tmp_path_factory.mktemp("stock")) as worker:
        yield worker


@pytest.fixture
async def stock(prefect_server: Server, worker: Worker) -> AsyncIterator[StockProject]:
    """A project whose rules the worker runs."""
    async with stock_project(prefect_server, worker.folder, worker.pool) as project:
        yield project


def python(call: str, **config: object) -> dict[str, object]:
    return {"type": "python", "call": f"stock_actions:{call}", "config": config}


async def test_cancel_ends_the_action_and_its_children(stock: StockProject) -> None:
    """Cancelled in Prefect's UI: the run is Cancelled, and the program with its own child is gone within seconds."""
    script = "sleep 864123 & echo started > started.txt; wait"
    await stock.apply({"id": "sleeper", "action": {"type": "command", "argv": ["sh", "-c", script]}, "timeout": "1h"})
    run = await stock.trigger("sleeper")
    await wait_until((stock.folder / "started.txt").exists, what="the program", timeout=PATIENCE)
    assert len(stock.processes("sleep", "864123")) >= 1
    await set_state(stock.api, run.id, Cancelling())
    asked = time.monotonic()
    await wait_until(lambda: not stock.processes("sleep", "864123"), what="the program's child gone", timeout=PATIENCE)
    gone = time.monotonic() - asked
    state = await stock.reaches(run, "Cancelled", "Crashed", "Failed", "Completed", timeout=PATIENCE)
    assert state.name == "Cancelled"
    assert gone < 60, f"gone after {gone:.1f} s"
    assert "TimedOut" not in await stock.history(run)


async def test_a_missed_run_on_a_stock_worker_is_resumed_and_cancelled_as_prefect_does_it(stock: StockProject) -> None:
    """The flow holds it; its process leaves without writing another state; Resume runs it, Cancel drops it."""
    await stock.apply(
        {"kind": "heartbeat", "every": "9d", "id": "kept", "action": python("say_async")},
        {"kind": "heartbeat", "every": "9d", "id": "dropped", "action": python("say_async")},
    )
    due = datetime.now(UTC).replace(microsecond=0) - timedelta(hours=5)
    kept, dropped = [await stock.make_scheduled(rule_id, due) for rule_id in ("kept", "dropped")]
    for run in (kept, dropped):
        state = await stock.reaches(run, "Missed", "Completed", "Crashed", "Failed", timeout=PATIENCE)
        assert state.name == "Missed"
    assert await cancel_run(stock.api, dropped.id)
    await stock.api.post(f"/flow_runs/{kept.id}/resume", {})
    state = await stock.reaches(kept, "Completed", "Crashed", "Failed", timeout=PATIENCE)
    assert (state.name, state.message) == ("Completed", "well")
    assert (await read_run(stock.api, kept.id)).expected_start_time == due
    names = await stock.history(kept)
    assert names[names.index("Missed") + 1] == "Resuming"
    assert (await stock.history(dropped))[-2:] == ["Missed", "Cancelled"]
    assert len(stock.lines("said-kept")) == 1
    assert stock.lines("said-dropped") == []


async def test_a_newer_run_cancels_the_running_one(stock: StockProject) -> None:
    """on_overlap = "cancel_running": the earlier run is Cancelled first, and only then does the later one act."""
    script = "echo x >> acted.txt; if [ $(wc -l < acted.txt) = 1 ]; then sleep 864124; fi"
    action = {"type": "command", "argv": ["sh", "-c", script]}
    await stock.apply({"id": "latest", "action": action, "on_overlap": "cancel_running", "timeout": "1h"})
    first = await stock.trigger("latest")
    await wait_until((stock.folder / "acted.txt").exists, what="the first run's program", timeout=PATIENCE)
    second = await stock.trigger("latest")
    state = await stock.reaches(second, "Quiet", "Skipped", "Crashed", "Failed", timeout=PATIENCE)
    assert state.name == "Quiet"
    ended = await read_run(stock.api, first.id)
    assert ended.state is not None
    assert ended.state.name == "Cancelled"
    assert len((stock.folder / "acted.txt").read_text().split()) == 2


async def test_overlapping_runs_are_skipped_with_the_reason(stock: StockProject) -> None:
    """Three at once on a stock worker: one works, two are Skipped as overlap; none is a nameless Cancelled."""
    await stock.apply({"id": "single", "action": python("work_async", seconds=20), "timeout": "2m"})
    runs = [await stock.trigger("single") for _ in range(3)]
    states = [await stock.reaches(run, "Quiet", "Skipped", "Cancelled", "Crashed", timeout=PATIENCE) for run in runs]
    assert sorted(state.name or "" for state in states) == ["Quiet", "Skipped", "Skipped"]
    assert all(str(state.message).startswith("overlap: ") for state in states if state.name == "Skipped")
    assert len(stock.lines("began")) == 1


async def test_rules_work_under_serve(prefect_server: Server, tmp_path: Path) -> None:
    """A flow of ours, served without any pool, gates and runs like everywhere."""
    make_folder(tmp_path)
    rule = WebhookRule.model_validate({"id": "served", "action": python("quiet_async")})
    (tmp_path / "serve.py").write_text(
        "from flows.webhook import webhook\n"
        "if __name__ == '__main__':\n"
        f"    webhook.serve(name='served', parameters={{'rule': {to_snapshot(rule)!r}, 'payload': None}})\n"
    )
    log = tmp_path / "serve.log"
    env = {**prefect_server.env, "PYTHONPATH": str(ROOT), "PREFECT_RUNNER_POLL_FREQUENCY": "1"}
    with log.open("wb") as out:
        process = subprocess.Popen(  # noqa: ASYNC220 - starting it is all that blocks
            [sys.executable, "serve.py"], env=env, cwd=tmp_path, stdout=out, stderr=out, start_new_session=True
        )
    try:
        async with stock_project(prefect_server, tmp_path, "none") as stock:

            async def served() -> str:
                assert process.poll() is None, log.read_text()[-2000:]
                found = await stock.api.post("/deployments/filter", {"deployments": {"name": {"any_": ["served"]}}})
                return str(found[0]["id"]) if found else ""

            deployment: str = await wait_until(served, what="the served deployment", timeout=PATIENCE)
            run = await create_run(stock.api, deployment, idempotency_key="one")
            state = await stock.reaches(run, "Quiet", "Completed", "Crashed", "Failed", timeout=PATIENCE)
            assert state.name == "Quiet", log.read_text()[-2000:]
            await stock.api.delete(f"/deployments/{deployment}")
    finally:
        stop(process)
