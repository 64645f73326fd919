"""What the benchmarks of running share: one Prefect server, the sides beside each other on it, and what they used.

Every side runs the same flow: `tick`, below, whose first line writes the time, or `stay`, which goes on after it. Sides
are asked in turn, so that what the machine does meanwhile falls on all of them.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import psutil
from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.client.schemas.filters import DeploymentFilter, DeploymentFilterName
from prefect.states import Pending, Running

from tests.conftest import Server, start_server, stop
from tests.support import free_port, wait_until

OURS, PROCESS, SERVE, FLOOR = "ours", "prefect_process_worker", "prefect_serve", "floor"
POSTGRES = os.environ.get("BENCH_POSTGRES", "postgresql://postgres@127.0.0.1:5432")
ROOT = Path(__file__).parent.parent

_FLOWS = """
import os, sys, time
from prefect import flow


@flow
def tick(file: str, key: str = ""):
    at = time.time()
    if not key:
        from prefect.runtime import flow_run
        key = f"{os.environ.get('BENCH_SIDE', '')}{flow_run.scheduled_start_time.timestamp()}"
    with open(file, "a") as out:
        out.write(f"{key} {at}\\n")


@flow
def stay(file: str, key: str):
    with open(file, "a") as out:
        out.write(f"{key}|{os.getpid()} {time.time()}\\n")
    time.sleep(600)


if __name__ == "__main__":
    from datetime import datetime, timedelta
    from prefect import serve
    from prefect.schedules import Interval
    served = []
    for number in range(int(sys.argv[3])):
        schedule = None
        if len(sys.argv) > 4:
            schedule = Interval(float(sys.argv[4]), anchor_date=datetime.fromisoformat(sys.argv[5]))
        name, parameters = f"{sys.argv[1]}-{number}", {"file": sys.argv[2]}
        served.append(tick.to_deployment(name, parameters=parameters, schedule=schedule))
    serve(*served, limit=200)
"""

_REQUEST = re.compile(rb"^(GET|POST|PATCH|PUT|DELETE) (\S+) HTTP/1", re.MULTILINE)


@dataclass
class Used:
    """What a process and all that it started have used: CPU seconds, and memory in MiB that is not shared."""

    cpu: float
    memory: float


def pool_of(side: str) -> str:
    """The work pool of a side; names that begin with "prefect" are reserved."""
    return f"bench-{side}"


def used(process: subprocess.Popen[bytes]) -> Used:
    """Of the process, its children alive, and those that ended and were waited for."""
    top = psutil.Process(process.pid)
    cpu = memory = 0.0
    for each in [top, *top.children(recursive=True)]:
        with contextlib.suppress(psutil.Error):
            times = each.cpu_times()
            cpu += times.user + times.system + times.children_user + times.children_system
            memory += each.memory_full_info().pss / 2**20
    return Used(cpu, memory)


class CountingProxy:
    """A TCP proxy before the server that counts the HTTP requests going through it.

    A connection whose request has `refused` in it is broken off.
    """

    def __init__(self, api_url: str, refused: bytes | None = None) -> None:
        self._refused = refused
        self._target = int(api_url.rsplit(":", 1)[1].split("/")[0])
        self.port = free_port()
        self.requests: list[str] = []
        self._writers: set[asyncio.StreamWriter] = set()

    async def __aenter__(self) -> CountingProxy:
        await self.mend()
        return self

    async def __aexit__(self, *_: object) -> None:
        self.cut()

    async def mend(self) -> None:
        """Let connections through, at the beginning or again."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)

    def cut(self) -> None:
        """Break all connections off, and take no new ones."""
        self._server.close()
        for writer in self._writers:
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            there, back = await asyncio.open_connection("127.0.0.1", self._target)
        except OSError:  # the server is away
            writer.close()
            return
        both = {back, writer}
        self._writers |= both
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.gather(self._pass(reader, back, count=True), self._pass(there, writer, count=False))
        self._writers -= both

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, count: bool) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(65536):
                if self._refused is not None and self._refused in data:
                    break
                if count:
                    self.requests += [f"{m[1].decode()} {m[2].decode()}" for m in _REQUEST.finditer(data)]
                writer.write(data)
                await writer.drain()
        writer.close()


@dataclass
class Bench:
    """A server, a client, and the sides that were started."""

    server: Server
    server_process: subprocess.Popen[bytes]
    client: PrefectClient
    folder: Path
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    deployments: dict[str, list[UUID]] = field(default_factory=dict)

    @property
    def lines(self) -> Path:
        """Where the flow writes its lines."""
        return self.folder / "lines.txt"

    def seen(self) -> dict[str, float]:
        """The key of each line so far, with the time it was written."""
        if not self.lines.exists():
            return {}
        rows = [row.split() for row in self.lines.read_text().splitlines()]
        return {row[0]: float(row[1]) for row in rows if len(row) == 2}

    def start(self, side: str, command: list[str], api_url: str | None = None, **env: str) -> None:
        """Start a side's process; its log is beside the lines."""
        log = (self.folder / f"{side}.log").open("wb")
        env = {**self.server.env, "BENCH_SIDE": f"{side}:", "PROACTIVE_HOME": str(self.folder / "home"), **env}
        env["PYTHONPATH"] = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
        if api_url:
            env["PREFECT_API_URL"] = api_url
        env.pop("PYTHONDONTWRITEBYTECODE", None)  # stock starts interpreters: as anywhere else, from their cache
        self.processes[side] = subprocess.Popen(
            [sys.executable, *command], env=env, stdout=log, stderr=log, cwd=self.folder, start_new_session=True
        )

    async def deploy(self, side: str, count: int = 1, *, flow: str = "tick", **options: Any) -> None:
        """Deploy the flow `count` times to the pool of `side`, made of the type that the side works."""
        kind = "proactive" if side == OURS else "process"
        await self.client.create_work_pool(WorkPoolCreate(name=pool_of(side), type=kind), overwrite=True)
        flow_id = await self.client.create_flow_from_name(flow)
        step = {"prefect.deployments.steps.set_working_directory": {"directory": str(self.folder)}}
        for number in range(count):
            made = await self.client.create_deployment(
                flow_id=flow_id,
                name=f"{side}-{number}",
                work_pool_name=pool_of(side),
                entrypoint=f"flows.py:{flow}",
                pull_steps=[step],
                parameters={"file": str(self.lines)},
                **options,
            )
            self.deployments.setdefault(side, []).append(made)

    async def work(self, side: str, count: int = 1, *, api_url: str | None = None, **options: Any) -> None:
        """Deploy for a worker side and start its worker."""
        await self.deploy(side, count, **options)
        self.start_worker(side, api_url)
        log = self.folder / f"{side}.log"
        await wait_until(lambda: "started!" in log.read_text(), what=f"worker of {side} started", timeout=120)

    def start_worker(self, side: str, api_url: str | None = None) -> None:
        """Start the worker of a side."""
        kind = "proactive" if side == OURS else "process"
        self.start(side, ["-m", "prefect", "worker", "start", "--type", kind, "--pool", pool_of(side)], api_url)

    async def serve(self, count: int = 1, *, every: float | None = None, anchor: datetime | None = None) -> None:
        """Start `serve()` with `count` deployments, due each `every` seconds from `anchor` if given."""
        times = [str(every), anchor.isoformat()] if every and anchor else []
        self.start(SERVE, ["flows.py", SERVE, str(self.lines), str(count), *times])

        async def made() -> list[UUID]:
            names = DeploymentFilter(name=DeploymentFilterName(like_=f"{SERVE}-"))
            found = [each.id for each in await self.client.read_deployments(deployment_filter=names)]
            return found if len(found) == count else []

        self.deployments[SERVE] = await wait_until(made, what="serve() has deployed", timeout=120)

    async def ended(self, run_id: UUID) -> None:
        """Wait until the run has ended."""

        async def has() -> bool:
            state = (await self.client.read_flow_run(run_id)).state
            return state is not None and state.is_final()

        await wait_until(has, what=f"the end of run {run_id}", timeout=120, every=0.2)

    async def floor(self, key: str) -> float:
        """The bare calls that any run needs before its first line: create, Pending, Running. Seconds."""
        (deployment,) = self.deployments[FLOOR]  # nobody works its pool
        began = time.perf_counter()
        run = await self.client.create_flow_run_from_deployment(deployment, parameters={"key": key})
        await self.client.set_flow_run_state(run.id, Pending())
        await self.client.set_flow_run_state(run.id, Running())
        return time.perf_counter() - began


def databases() -> list[str]:
    """What to measure on: "postgresql" where it answers, and last "sqlite", the embedded database; or the one asked."""
    asked = os.environ.get("BENCH_DATABASE")
    found = [asked] if asked else ["postgresql", "sqlite"]
    return [name for name in found if name == "sqlite" or asyncio.run(_answers())]


async def _answers() -> bool:
    try:
        await (await asyncpg.connect(f"{POSTGRES}/postgres", timeout=5)).close()
    except (OSError, asyncpg.PostgresError):
        return False
    return True


@contextlib.asynccontextmanager
async def new_database() -> AsyncIterator[str]:
    """The URL of a PostgreSQL database that is new, and dropped afterwards."""
    own = f"bench_{uuid4().hex[:8]}"
    connection = await asyncpg.connect(f"{POSTGRES}/postgres", timeout=5)
    try:
        await connection.execute(f"CREATE DATABASE {own}")
        yield f"{POSTGRES}/{own}"
        await connection.execute(f"DROP DATABASE {own} WITH (FORCE)")
    finally:
        await connection.close()


@contextlib.asynccontextmanager
async def _server_settings(database: str) -> AsyncIterator[dict[str, str]]:
    # Runs that are made for a measurement wait for it: that they are late is no news, and to mark them is work.
    settings = {"PREFECT_SERVER_SERVICES_LATE_RUNS_ENABLED": "false"}
    if database == "sqlite":
        yield settings
        return
    async with new_database() as url:
        url = url.replace("postgresql://", "postgresql+asyncpg://")
        yield {**settings, "PREFECT_SERVER_DATABASE_CONNECTION_URL": url}


@contextlib.asynccontextmanager
async def bench(database: str = "sqlite") -> AsyncIterator[Bench]:
    """A server of its own on a new database, and a folder with the flow; all of it ends with the context."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
        folder = Path(name)
        (folder / "flows.py").write_text(_FLOWS)
        (folder / "prefect").mkdir()
        async with _server_settings(database) as settings:
            server, process = await asyncio.to_thread(partial(start_server, folder / "prefect", **settings))
            try:
                async with PrefectClient(server.api_url) as client:
                    running = Bench(server, process, client, folder)
                    try:
                        yield running
                    finally:
                        for each in running.processes.values():
                            with contextlib.suppress(ProcessLookupError):
                                os.killpg(each.pid, signal.SIGKILL)
                            each.wait(30)
            finally:
                stop(process)
