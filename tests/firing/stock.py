"""A project whose rules run as on any user's Prefect: by its own process worker, or by its engine in this process."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import psutil
from prefect.client.schemas.objects import FlowRun, State
from prefect.exceptions import Abort, Pause
from prefect.flow_engine import run_flow_async

from proactive_prefect.deploy.apply import apply_plan
from proactive_prefect.deploy.compile import Project, compile_rules
from proactive_prefect.deploy.plan import make_plan
from proactive_prefect.prefect_api import PrefectApi
from proactive_prefect.prefect_api.client import connect
from proactive_prefect.prefect_api.deployments import deployed_rules
from proactive_prefect.prefect_api.runs import create_run, read_run, run_states
from proactive_prefect.rules.models import Rulebook

from ..conftest import Server, stop
from ..support import wait_until, wait_until_sync

ROOT = Path(__file__).parents[2]

ACTIONS = '''
"""Actions of the test's project; each writes lines to `lines.txt`."""
import asyncio
import time
from pathlib import Path

from proactive_prefect.firing.results import HeartbeatResult


def note(word):
    with open("lines.txt", "a") as out:
        out.write(f"{word} {time.time()}\\n")


def say(ctx):
    note(f"said-{ctx.rule_id}")
    return HeartbeatResult(True, f"**all well** `{ctx.rule_id}`", {"attempt": ctx.attempt})


def quiet(ctx):
    note(f"quiet-{ctx.rule_id}")
    return None


async def quiet_async(ctx):
    note(f"quiet-{ctx.rule_id}")


async def say_async(ctx):
    note(f"said-{ctx.rule_id}")
    return "well"


def fail(ctx):
    note(f"failed-{ctx.rule_id}")
    raise ValueError("no luck")


def fail_twice(ctx):
    note(f"attempt-{ctx.attempt}")
    if ctx.attempt < 3:
        raise ValueError("not yet")
    return f"attempt {ctx.attempt}"


def hang(ctx):
    note(f"hung-{ctx.rule_id}")
    time.sleep(600)


async def hang_async(ctx):
    note(f"hung-{ctx.rule_id}")
    await asyncio.sleep(600)


def work(ctx):
    note(f"began-{ctx.run_id}")
    time.sleep(float(ctx.config.get("seconds", 3)))
    note(f"ended-{ctx.run_id}")


async def work_async(ctx):
    note(f"began-{ctx.run_id}")
    await asyncio.sleep(float(ctx.config.get("seconds", 3)))
    note(f"ended-{ctx.run_id}")


def echo(ctx):
    note(f"payload-{len(ctx.payload_text or '')}")
    return f"got {ctx.payload['word']}"


def no_session():
    note("asked-session")
    return False
'''


@dataclass
class StockProject:
    """A project with a process pool of its own. Rules are given as a rules file says them."""

    api: PrefectApi
    server: Server
    folder: Path
    project: Project
    ids: dict[str, UUID] = field(default_factory=dict)

    async def apply(self, *rules: dict[str, Any], **table: Any) -> None:
        """Deploy these rules, and no others."""
        book = Rulebook.model_validate(
            {"proactive": {"enabled": True, **table}, "rules": [{"kind": "webhook", **rule} for rule in rules]}
        )
        await apply_plan(self.api, await make_plan(self.api, compile_rules(book, self.project), self.project))
        for deployed in await deployed_rules(self.api):
            if deployed.project == self.project.name:
                self.ids[deployed.rule.id] = UUID(str(deployed.deployment_id))

    async def trigger(self, rule_id: str, **options: Any) -> FlowRun:
        """Run now, as a person does."""
        return await create_run(self.api, self.ids[rule_id], idempotency_key=str(uuid4()), **options)

    async def make_scheduled(self, rule_id: str, due: datetime) -> FlowRun:
        """A run as Prefect's scheduler makes it, due at `due`, which may be long ago.

        The API has no way to ask for `auto_scheduled` but the scheduler's own: a schedule, and a call to make its runs.
        """
        deployment = self.ids[rule_id]
        at = due.astimezone(UTC)
        schedule = {
            "active": True,
            "slug": f"at-{at:%Y%m%d%H%M%S}-{uuid4().hex[:6]}",
            "schedule": {"rrule": f"DTSTART:{at:%Y%m%dT%H%M%SZ}\nRRULE:FREQ=DAILY;COUNT=1", "timezone": "UTC"},
        }
        known = {run["id"] for run in await self._runs(rule_id)}
        await self.api.post(f"/deployments/{deployment}/schedules", [schedule])
        times = {"start_time": due.isoformat(), "end_time": due.replace(second=59).isoformat(), "min_runs": 5}
        await self.api.post(f"/deployments/{deployment}/schedule", times)
        # The server's own scheduler may have made the rule's next runs meanwhile.
        new = [run for run in await self._runs(rule_id) if run["id"] not in known]
        made = [run for run in new if datetime.fromisoformat(run["expected_start_time"]) == due]
        assert len(made) == 1, f"one run for {due}, not {made}"
        return await read_run(self.api, made[0]["id"])

    async def _runs(self, rule_id: str) -> list[dict[str, Any]]:
        body = {"deployments": {"id": {"any_": [str(self.ids[rule_id])]}}, "limit": 200}
        return list(await self.api.post("/flow_runs/filter", body))

    async def execute(self, run: FlowRun) -> State[Any]:
        """Run it here with Prefect's engine, as every worker does in a process of the run's own; gives its state."""
        known = await self.api.get(f"/flows/{run.flow_id}")
        flow = getattr(import_module(f"flows.{known['name']}"), known["name"])
        with suppress(Pause, Abort):
            await run_flow_async(flow, flow_run=run, parameters=run.parameters, return_type="state")
        state = (await read_run(self.api, run.id)).state
        assert state is not None
        return state

    async def fire(self, rule_id: str, **options: Any) -> tuple[FlowRun, State[Any]]:
        """Run now, here, to the end."""
        run = await self.trigger(rule_id, **options)
        return run, await self.execute(run)

    async def reaches(self, run: FlowRun, *names: str, timeout: float = 90) -> State[Any]:
        """Wait until the run is in a state of one of these names."""
        seen: list[str] = []

        async def there() -> list[State[Any]]:
            state = (await read_run(self.api, run.id)).state
            assert state is not None
            seen[:] = [f"{state.name}: {state.message}"]
            return [state] if state.name in names else []

        try:
            found: list[State[Any]] = await wait_until(
                there, what=f"state {' or '.join(names)}", timeout=timeout, every=0.2
            )
        except AssertionError as late:
            raise AssertionError(f"{late}; it is {seen}") from None
        return found[0]

    async def history(self, run: FlowRun) -> list[str]:
        """The names of all the run's states, oldest first."""
        return [state.name or "" for state in await run_states(self.api, run.id)]

    async def artifacts(self, run: FlowRun) -> list[dict[str, Any]]:
        """What the run left."""
        body = {"artifacts": {"flow_run_id": {"any_": [str(run.id)]}}}
        return list(await self.api.post("/artifacts/filter", body))

    async def logs(self, run: FlowRun) -> str:
        """The run's log in Prefect."""
        body = {"logs": {"flow_run_id": {"any_": [str(run.id)]}}, "limit": 200}
        return "\n".join(line["message"] for line in await self.api.post("/logs/filter", body))

    async def task_runs(self, run: FlowRun) -> list[dict[str, Any]]:
        """The run's task runs, as Prefect stores them."""
        body = {"flow_runs": {"id": {"any_": [str(run.id)]}}}
        return list(await self.api.post("/task_runs/filter", body))

    def lines(self, word: str) -> list[float]:
        """The times at which actions wrote lines that begin with `word`."""
        file = self.folder / "lines.txt"
        rows = file.read_text().splitlines() if file.exists() else []
        return [float(row.split()[1]) for row in rows if row.startswith(word)]

    async def wrote(self, word: str, count: int = 1, timeout: float = 90) -> list[float]:
        """Wait until actions wrote so many lines that begin with `word`."""
        await wait_until(lambda: len(self.lines(word)) >= count, what=f"{count} lines {word!r}", timeout=timeout)
        return self.lines(word)

    def processes(self, *needles: str) -> list[psutil.Process]:
        """The machine's live processes whose command line has all these words."""
        found = []
        for process in psutil.process_iter():
            try:
                line = " ".join(process.cmdline())
                if all(needle in line for needle in needles) and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
            except psutil.Error:
                continue
        return found


@dataclass(frozen=True)
class Worker:
    """A running process worker: its folder, pool and log."""

    folder: Path
    pool: str
    log: Path


def make_folder(folder: Path) -> None:
    """A project's folder: the flows, and some actions."""
    (folder / "flows").symlink_to(ROOT / "flows")
    (folder / "stock_actions.py").write_text(ACTIONS)


@contextmanager
def process_worker(server: Server, folder: Path) -> Iterator[Worker]:
    """Prefect's own process worker, in a project's folder."""
    make_folder(folder)
    pool, log = f"stock-{uuid4().hex[:8]}", folder / "worker.log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "prefect", "worker", "start", "--type", "process", "--pool", pool],
            env={**server.env, "PREFECT_WORKER_QUERY_SECONDS": "1", "PYTHONPATH": str(ROOT)},
            cwd=folder,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:

        def started() -> bool:
            assert process.poll() is None, f"the worker ended: {log.read_text()[-2000:]}"
            return "started!" in log.read_text()

        wait_until_sync(started, what="a process worker", timeout=120)
        yield Worker(folder, pool, log)
    finally:
        children = psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
        stop(process)
        for child in children:
            if child.is_running():
                child.kill()


@asynccontextmanager
async def stock_project(server: Server, folder: Path, pool: str) -> AsyncIterator[StockProject]:
    """A project of the test's own; its deployments are gone afterwards."""
    (folder / "lines.txt").unlink(missing_ok=True)
    async with connect() as api:
        stock = StockProject(api, server, folder, Project(f"p-{uuid4().hex[:8]}", folder, pool))
        try:
            yield stock
        finally:
            for rule_id in stock.ids.values():
                await api.delete(f"/deployments/{rule_id}")


def text_of(value: Any) -> str:
    """All that a JSON answer says."""
    return json.dumps(value, default=str)
