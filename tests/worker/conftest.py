"""A project of plain flows, deployed to a pool of its own, and workers in real processes."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import psutil
import pytest
from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.client.schemas.objects import FlowRun
from prefect.states import Cancelling, Scheduled

from proactive_prefect.worker import ProactiveWorker

from ..conftest import Server
from ..support import wait_until

FLOWS = '''
"""Flows as any user writes them; each writes lines `name pid time` to the file that it is given."""
import os, subprocess, sys, time
from pathlib import Path
from prefect import flow, get_run_logger
import helper


def note(file, word):
    with open(file, "a") as out:
        out.write(f"{word} {os.getpid()} {time.time()}\\n")


@flow
def quick(file: str, word: str = "ran"):
    note(file, word)


@flow
async def quick_async(file: str, word: str = "ran"):
    get_run_logger().info("a line of the flow")
    note(file, word)


@flow
def value(file: str):
    note(file, str(helper.VALUE))


@flow
def slow(file: str, seconds: float = 60, word: str = "began"):
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    note(file, word)
    note(file, f"child:{child.pid}")
    try:
        time.sleep(seconds)
        note(file, "ended")
    finally:
        note(file, "cleaned")


@flow
async def slow_async(file: str, seconds: float = 60):
    import asyncio
    note(file, "began")
    try:
        await asyncio.sleep(seconds)
    finally:
        note(file, "cleaned")


@flow
def stubborn(file: str):
    import signal
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    note(file, "began")
    while True:
        time.sleep(0.1)


@flow
def greedy(file: str):
    note(file, "began")
    held = bytearray(900 * 1024 * 1024)
    note(file, f"got:{len(held)}")


@flow
def seed(file: str):
    note(file, f"seed:{os.environ.get('PYTHONHASHSEED')}")


@flow
def leaves(file: str, status: int = 0):
    note(file, "began")
    os._exit(status)


@flow(retries=2, retry_delay_seconds=0)
def flaky(file: str):
    note(file, "try")
    if len(Path(file).read_text().splitlines()) < 3:
        raise ValueError("not yet")
'''


@dataclass
class Line:
    """One line that a flow wrote."""

    word: str
    pid: int
    at: float


@dataclass
class Project:
    """A folder with flows, a work pool of type proactive, and deployments of the flows to it."""

    folder: Path
    pool: str
    client: PrefectClient
    env: dict[str, str]
    deployments: dict[str, UUID] = field(default_factory=dict)
    workers: list[subprocess.Popen[bytes]] = field(default_factory=list)

    async def deploy(self, flow: str, entrypoint: str | None = None, **options: Any) -> UUID:
        """Deploy `flow` of the project's file, as `flow.deploy` and `prefect deploy` do: with a pull step."""
        flow_id = await self.client.create_flow_from_name(flow.replace("_", "-"))
        options.setdefault(
            "pull_steps", [{"prefect.deployments.steps.set_working_directory": {"directory": str(self.folder)}}]
        )
        self.deployments[flow] = await self.client.create_deployment(
            flow_id=flow_id,
            name=f"{self.pool}-{len(self.deployments)}",
            work_pool_name=self.pool,
            entrypoint=entrypoint or f"flows.py:{flow}",
            **options,
        )
        return self.deployments[flow]

    async def start(self, flow: str, *, at: datetime | None = None, **parameters: Any) -> FlowRun:
        """Run `flow` now, or at an instant."""
        if flow not in self.deployments:
            await self.deploy(flow)
        parameters.setdefault("file", str(self.file))
        state = Scheduled(scheduled_time=at) if at else None
        return await self.client.create_flow_run_from_deployment(
            self.deployments[flow], parameters=parameters, state=state
        )

    @property
    def file(self) -> Path:
        """Where flows write their lines, if the test names no other."""
        return self.folder / "lines.txt"

    def lines(self, word: str = "") -> list[Line]:
        """The lines that flows wrote so far, those of `word` or all."""
        if not self.file.exists():
            return []
        rows = [row.split() for row in self.file.read_text().splitlines()]
        return [Line(row[0], int(row[1]), float(row[2])) for row in rows if row[0].startswith(word)]

    async def wrote(self, word: str, count: int = 1, timeout: float = 60) -> list[Line]:
        """Wait until flows wrote `count` lines of `word`."""
        await wait_until(lambda: len(self.lines(word)) >= count, what=f"{count} lines {word!r}", timeout=timeout)
        return self.lines(word)

    async def ended(self, run: FlowRun, name: str, timeout: float = 60) -> FlowRun:
        """Wait until the run is in the state called `name`."""
        seen = "nothing"

        async def is_there() -> FlowRun | None:
            nonlocal seen
            now = await self.client.read_flow_run(run.id)
            seen = f"{now.state_name}: {now.state and now.state.message}"
            return now if now.state_name == name else None

        try:
            return await wait_until(is_there, what=f"run is {name}", timeout=timeout)
        except AssertionError as late:
            raise AssertionError(f"{late}; it is {seen}") from None

    async def cancel(self, run: FlowRun) -> None:
        """Cancel as Prefect's UI and CLI do."""
        await self.client.set_flow_run_state(run.id, Cancelling())

    def work(self, *options: str, **env: str) -> subprocess.Popen[bytes]:
        """Start a worker as a user does."""
        log = (self.folder / f"worker{len(self.workers)}.log").open("wb")
        command = [sys.executable, "-m", "prefect", "worker", "start", "--type", "proactive", "--pool", self.pool]
        process = subprocess.Popen(
            [*command, *options],
            env={**self.env, **env},
            stdout=log,
            stderr=log,
            cwd=self.folder,
            start_new_session=True,
        )
        self.workers.append(process)
        return process

    async def worker(self, *options: str, **env: str) -> subprocess.Popen[bytes]:
        """Start a worker and wait until it works."""
        process = self.work(*options, **env)
        log = self.folder / f"worker{len(self.workers) - 1}.log"

        def started() -> bool:
            assert process.poll() is None, log.read_text()
            return "started!" in log.read_text()

        await wait_until(started, what="worker started", timeout=120)
        return process

    def processes(self) -> list[psutil.Process]:
        """Everything that the project's workers and their runs have left running."""
        pool = self.pool
        found = []
        for process in psutil.process_iter():
            try:
                if process.environ().get("PROACTIVE_TEST_POOL") == pool and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
            except psutil.Error:
                continue
        return found

    def clean(self) -> None:
        """Kill what is left."""
        for process in self.processes():
            try:
                process.kill()
            except psutil.Error:
                continue
        for worker in self.workers:
            worker.wait(30)


@asynccontextmanager
async def project_on(server: Server, folder: Path) -> AsyncIterator[Project]:
    """A project on a server, with no worker yet."""
    pool = f"pool-{uuid4().hex[:8]}"
    (folder / "flows.py").write_text(FLOWS)
    (folder / "helper.py").write_text("VALUE = 1\n")
    env = {**server.env, "PROACTIVE_HOME": str(folder / "home"), "PROACTIVE_TEST_POOL": pool}
    async with PrefectClient(server.api_url) as client:
        template = ProactiveWorker.get_default_base_job_template()
        await client.create_work_pool(WorkPoolCreate(name=pool, type="proactive", base_job_template=template))
        project = Project(folder, pool, client, env)
        try:
            yield project
        finally:
            project.clean()
            await client.delete_work_pool(pool)


@pytest.fixture
async def project(prefect_server: Server, tmp_path: Path) -> AsyncIterator[Project]:
    """A project with no worker yet."""
    async with project_on(prefect_server, tmp_path) as project:
        yield project


def now() -> datetime:
    """The present instant."""
    return datetime.now(UTC)


def terminate(process: subprocess.Popen[bytes], timeout: float = 60) -> float:
    """Send SIGTERM and wait; gives the seconds it took."""
    began = time.monotonic()
    process.send_signal(signal.SIGTERM)
    process.wait(timeout)
    return time.monotonic() - began
