"""The worker and the gateway as parts of `up`: started early, since their imports take seconds, and ready later."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import sys
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING

import httpx

from ..errors import PrefectError
from ..settings import Settings
from .children import Child, Say
from .ports import choose_port, listens, url_at
from .work import WORKER_TYPE

if TYPE_CHECKING:
    from ..prefect_api.client import PrefectApi

_PATIENCE = 600.0
_DIED_OFTEN = 2


class Part:
    """One of our own processes: `proactive NAME`, its log in PROACTIVE_HOME."""

    def __init__(self, name: str, settings: Settings, env: Mapping[str, str], say: Say) -> None:
        argv = [sys.executable, "-m", "proactive_prefect.cli", name]
        self.child = Child(name, argv, env, settings.home / "logs" / f"{name}.log", say)

    async def wait_until(self, condition: Callable[[], Awaitable[bool]], otherwise: str) -> None:
        """Wait for a condition. Raises PrefectError if the process keeps dying, or after ten minutes."""
        deadline = time.monotonic() + _PATIENCE
        while not await condition():
            if self.child.restarts >= _DIED_OFTEN or time.monotonic() > deadline:
                raise PrefectError(f"{otherwise}: {self.child.tail()}", hint=f"Its log: {self.child.log}")
            await asyncio.sleep(0.1)


class WorkerPart(Part):
    """A worker of the project's work pool."""

    def __init__(self, settings: Settings, project: str, env: Mapping[str, str], say: Say) -> None:
        self.pool = settings.work_pool
        self.worker_name = f"{project} on {socket.gethostname()}"
        # The runs get the grace that Ctrl-C leaves them: `up` ends within five seconds.
        grace = min(settings.worker_grace, 1.0)
        own = {"PROACTIVE_WORKER_NAME": self.worker_name, "PROACTIVE_WORKER_GRACE": str(grace)}
        super().__init__("worker", settings, {**env, **own}, say)

    async def fits(self, api: PrefectApi) -> str | None:
        """None if the pool is of our worker's type, else the type that it is of."""
        found = str((await api.get(f"/work_pools/{self.pool}"))["type"])
        return None if found == WORKER_TYPE else found

    async def last_sign(self, api: PrefectApi) -> str | None:
        """When this worker was last seen by Prefect, as Prefect writes it; None if never, or if it is not online."""
        from ..prefect_api.overview import pool_workers

        for worker in await pool_workers(api, self.pool) or ():
            if worker["name"] == self.worker_name and worker["status"] == "ONLINE":
                return str(worker["last_heartbeat_time"])
        return None

    async def wait_polling(self, api: PrefectApi, since: float) -> None:
        """Wait until Prefect has seen it polling after `since` (Unix time, by the server's clock)."""
        from .words import read_instant

        async def polls() -> bool:
            seen = read_instant(await self.last_sign(api))
            return seen is not None and seen.timestamp() >= since

        await self.wait_until(polls, f"the worker has not polled the work pool {self.pool}")


class GatewayPart(Part):
    """The gateway, on the port wished for or on a free one."""

    def __init__(self, settings: Settings, env: Mapping[str, str], say: Say) -> None:
        host, wished = settings.gateway_host, settings.gateway_port
        self.port = choose_port(host, wished)
        if wished and self.port != wished:
            say(f"port {wished} is taken: the gateway gets {self.port} (PROACTIVE_GATEWAY_PORT sets it)")
        self.own_url = url_at(host, self.port)
        self.url = (settings.gateway_url or self.own_url).rstrip("/")
        super().__init__("gateway", settings, {**env, "PROACTIVE_GATEWAY_PORT": str(self.port)}, say)

    async def wait_ready(self, webhooks: int) -> None:
        """Wait until `/readyz` says so, and that it knows so many webhooks, on a port that is really its own."""
        async with httpx.AsyncClient(timeout=5) as http:

            async def ready() -> bool:
                if self.child.pid is None or not listens(self.child.pid, self.port):
                    return False
                with contextlib.suppress(httpx.HTTPError):
                    answer = await http.get(f"{self.own_url}/readyz")
                    return answer.status_code == 200 and answer.json()["webhooks"] >= webhooks
                return False

            await self.wait_until(ready, "the gateway is not ready")
