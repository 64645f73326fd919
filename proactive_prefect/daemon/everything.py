"""All that `proactive up` runs, in order: Prefect's server, the work pool, the rules, a worker and the gateway."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import os
import time
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING

from ..settings import Settings
from . import guard
from .board import Board
from .children import Child
from .declared import Declared
from .parts import GatewayPart, WorkerPart
from .report import Report
from .server import EmbeddedServer, base_env, may_name_an_api
from .upfile import UpFile, WebhookEntry, keep_writing, remove_up_file
from .work import WORKER_TYPE

if TYPE_CHECKING:
    from ..prefect_api.client import PrefectApi

_FIRST_ANSWER = 10.0
# Together below five seconds: that is what Ctrl-C may take.
_WORKER_GRACE = 3.0  # its runs have the first second, and it tells how they ended in the rest
_GATEWAY_GRACE = 0.8
_SERVER_GRACE = 0.8


class Everything:
    """All the processes of one project on this machine. `run` starts them and stays; `end` ends them."""

    def __init__(self, settings: Settings, declared: Declared, tag: str, report: Report) -> None:
        self._settings = settings
        self._declared = declared
        self._report = report
        self._env = base_env(settings.home, declared.config, {guard.TAG: tag})
        self._began = time.time()
        self._server: EmbeddedServer | None = None
        self._worker: WorkerPart | None = None
        self._gateway: GatewayPart | None = None
        self._open = contextlib.AsyncExitStack()

    async def run(self) -> None:
        """Start all, say so, write `up.json` when all is ready, and show the board until cancelled."""
        url = await self._find_or_start_prefect()
        from ..prefect_api.address import use_api_url

        with use_api_url(url):
            api = await self._connect()
            await self._apply(api)
            async with asyncio.TaskGroup() as group:
                group.create_task(self._await_worker(api))
                gateway = group.create_task(self._await_gateway())
            up_file = await self._up_file(api, gateway.result())
            await keep_writing(self._settings.home, up_file, self._report.say)
            self._report.say(f"ready after {self._report.elapsed:.1f} s; Ctrl-C ends everything")
            await asyncio.gather(Board(self._report, self._declared, up_file, api).show(), self._keep_pids(up_file))

    async def end(self) -> None:
        """End all, in the order that leaves no run behind: the worker, which ends its runs, the gateway, the server.

        A run that the worker has no time for, and those of a worker that was killed, the next worker of this home ends.
        """
        for child in self._children().values():
            child.stop_keeping()
        with contextlib.suppress(OSError):  # with the lock gone, nobody believes it
            remove_up_file(self._settings.home)
        self._report.say("ending: runs first, then the rest")
        if self._worker is not None:
            await self._worker.child.end(grace=_WORKER_GRACE)
        if self._gateway is not None:
            await self._gateway.child.end(grace=_GATEWAY_GRACE)
        if self._server is not None and self._server.child is not None:
            await self._server.child.end(grace=_SERVER_GRACE)
        with contextlib.suppress(Exception):  # closing a client whose server is gone
            await self._open.aclose()

    def _children(self) -> dict[str, Child]:
        named = {
            "server": self._server.child if self._server else None,
            "worker": self._worker.child if self._worker else None,
            "gateway": self._gateway.child if self._gateway else None,
        }
        return {name: child for name, child in named.items() if child is not None}

    # -- Prefect ---------------------------------------------------------------------------------------------------

    async def _find_or_start_prefect(self) -> str:
        """The API that Prefect's settings name; where they name none, that of a server that is started here."""
        if may_name_an_api() and (url := await _configured_api_url()):
            self._env["PREFECT_API_URL"] = url
            return url
        server = self._server = EmbeddedServer(self._env, self._settings.home, self._report.say)
        with self._report.step("Prefect server") as step:
            await server.start()
            os.environ["PREFECT_API_URL"] = self._env["PREFECT_API_URL"] = server.api_url
            # All of them import for seconds: at the same time, while the server does.
            await self._start_parts()
            await asyncio.gather(server.wait_healthy(), asyncio.to_thread(_import_prefect))
            step.detail = server.url
        return server.api_url

    async def _start_parts(self) -> None:
        settings, say = self._settings, self._report.say
        self._gateway = GatewayPart(settings, self._env, say)
        self._worker = WorkerPart(settings, self._declared.name, self._env, say)
        await self._gateway.child.start()
        await self._worker.child.start()

    async def _connect(self) -> PrefectApi:
        """Open Prefect's client, and prove that the server answers. Raises PrefectUnreachable."""
        from ..prefect_api.client import connect

        with self._report.step("Prefect API") as step:
            async with connect(self._settings.model_copy(update={"api_patience": _FIRST_ANSWER})) as api:
                await api.get("/health")
                step.detail = api.url
            opened = await self._open.enter_async_context(connect(self._settings))
        if self._worker is None:  # a server that was there already
            await self._start_parts()
        return opened

    async def _apply(self, api: PrefectApi) -> None:
        from ..deploy.apply import apply_plan
        from ..deploy.compile import compile_rules
        from ..deploy.plan import make_plan
        from ..prefect_api.pools import create_pool, read_queues

        with self._report.step("rules") as step:
            if not await read_queues(api, [self._settings.work_pool]):
                await create_pool(api, self._settings.work_pool, WORKER_TYPE)
            project = self._declared.project(self._settings)
            specs = compile_rules(self._declared.rulebook, project)
            plan = await make_plan(api, specs, project, pool_type=WORKER_TYPE)
            for missing in (found for found in plan.obstacles if found.alerts_of):
                # No reason that nothing fires; and where it is to be made may be the server that is just starting.
                self._report.say(f"no alerts there: {missing.message}. {missing.hint}", style="bold yellow")
            plan = replace(plan, obstacles=tuple(found for found in plan.obstacles if not found.alerts_of))
            await apply_plan(api, plan)
            changes = len(plan.added) + len(plan.changed) + len(plan.removed)
            step.detail = f"{len(specs)} declared, {changes} changed on the server"

    # -- worker and gateway ----------------------------------------------------------------------------------------

    async def _await_worker(self, api: PrefectApi) -> None:
        worker = self._worker
        assert worker is not None  # started before
        if other := await worker.fits(api):
            self._report.say(f"work pool {worker.pool} is of type {other}: its own workers run the rules")
            self._worker = None
            await worker.child.end(grace=_WORKER_GRACE)
            return
        with self._report.step("worker") as step:
            await worker.wait_polling(api, self._began)
            step.detail = f"polls {worker.pool}"

    async def _await_gateway(self) -> GatewayPart:
        gateway = self._gateway
        assert gateway is not None  # started before
        webhooks = sum(rule.kind == "webhook" for rule in self._declared.rulebook.rules)
        with self._report.step("gateway") as step:
            await gateway.wait_ready(webhooks)
            step.detail = gateway.own_url
        return gateway

    # -- up.json ---------------------------------------------------------------------------------------------------

    async def _up_file(self, api: PrefectApi, gateway: GatewayPart) -> UpFile:
        from ..gateway.doors import Doors
        from ..gateway.secrets import operator_token

        doors = Doors(api, self._settings)
        await doors.refresh()
        declared = {rule.id for rule in self._declared.rulebook.rules}
        return UpFile(
            prefect_url=self._server.url if self._server else _ui_of(api.url),
            prefect_api_url=str(api.client.api_url).rstrip("/"),  # whole: commands call it
            gateway_url=gateway.url,
            token=operator_token(self._settings),
            webhooks={
                door.rule.id: WebhookEntry(url=f"{gateway.url}/hooks/{door.rule.id}", secret=door.secret)
                for door in doors
                if door.secret and door.rule.id in declared
            },
            pids=self._pids(),
            started_at=datetime.now().astimezone().isoformat(timespec="seconds"),
        )

    def _pids(self) -> dict[str, int]:
        alive = {name: child.pid for name, child in self._children().items()}
        return {"up": os.getpid(), **{name: pid for name, pid in alive.items() if pid is not None}}

    async def _keep_pids(self, up_file: UpFile) -> None:
        """Write `up.json` again whenever a process was started anew."""
        while True:
            await asyncio.sleep(1)
            if (pids := self._pids()) != up_file["pids"]:
                up_file["pids"] = pids
                await keep_writing(self._settings.home, up_file, self._report.say)


def _import_prefect() -> None:
    importlib.import_module("proactive_prefect.prefect_api.deployments")


async def _configured_api_url() -> str | None:
    await asyncio.to_thread(_import_prefect)
    from ..prefect_api.address import configured_api_url

    return configured_api_url()


def _ui_of(api_url: str) -> str:
    from ..prefect_api.links import ui_url

    return ui_url() or api_url.rstrip("/").removesuffix("/api")
