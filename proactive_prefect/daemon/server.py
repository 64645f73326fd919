"""The embedded Prefect server: its environment, its start, and the proof that it is ours and healthy."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections.abc import Mapping
from pathlib import Path

import httpx

from ..errors import PrefectError
from .children import Child, Say
from .ports import choose_port, listens, url_at

DEFAULT_PORT = 4200
_LONGEST_START = 600.0  # a busy small machine, and a first start that creates the database
_DIED_OFTEN = 2

# Defaults for the embedded server; what the user has set wins.
_DEFAULTS = {
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
    # The default keeps leases in memory: a restart of the server would cancel live runs and leak their slots.
    "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": "prefect.server.concurrency.lease_storage.filesystem",
    # How long a run that found no slot waits before it asks again (Prefect's default: 30 s).
    "PREFECT_SERVER_DEPLOYMENTS_CONCURRENCY_SLOT_WAIT_SECONDS": "5",
    # By default Prefect marks as late what waits for 15 s, each run in a transaction of its own and all at once: in a
    # burst they lock out each other, and who starts and creates runs, again every 5 s.
    "PREFECT_SERVER_SERVICES_LATE_RUNS_AFTER_SECONDS": "300",
    # Fewer, larger writes: each one holds SQLite's only write lock.
    "PREFECT_SERVER_SERVICES_EVENT_PERSISTER_BATCH_SIZE": "200",
    "PREFECT_SERVER_SERVICES_EVENT_PERSISTER_FLUSH_INTERVAL": "2",
    "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_BATCH_SIZE": "50",
    "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_FLUSH_INTERVAL": "1",
    # Prefect lists all timezones for each schedule that it reads, twice: 6 ms from the system's folders, 0.3 ms from
    # the tzdata package alone, which is used when there is no folder.
    "PYTHONTZPATH": "",
}
# For everything below `up` that calls the embedded server: a busy answer (503, "database is locked") is no failure.
CLIENT_DEFAULTS = {
    "DO_NOT_TRACK": "1",
    "PREFECT_CLIENT_MAX_RETRIES": "8",  # each waits twice as long as the one before: some 8 minutes in all
    "PREFECT_CLIENT_RETRY_JITTER_FACTOR": "0.5",
}


def server_env(base: Mapping[str, str], home: Path, api_url: str) -> dict[str, str]:
    """The server's environment: `base`, our defaults below it, its files in `home` unless PREFECT_HOME says else."""
    return {
        **_DEFAULTS,
        "PREFECT_HOME": str(home / "prefect"),
        **base,
        "PREFECT_API_URL": api_url,
    }


class EmbeddedServer:
    """A Prefect server on this machine, on its embedded database."""

    def __init__(self, base: Mapping[str, str], home: Path, say: Say) -> None:
        self._base = base
        self._home = home
        self._say = say
        self._host = base.get("PREFECT_SERVER_API_HOST", "127.0.0.1")
        self._wished = int(base.get("PREFECT_SERVER_API_PORT", DEFAULT_PORT))
        self.port = 0
        self.child: Child | None = None

    @property
    def url(self) -> str:
        """The server's own address, where its UI is."""
        return url_at(self._host, self.port)

    @property
    def api_url(self) -> str:
        """The address of its API."""
        return f"{self.url}/api"

    async def start(self) -> Child:
        """Start it on the port wished for, or on a free one. It is not healthy yet: `wait_healthy`."""
        self.port = choose_port(self._host, self._wished)
        if self.port != self._wished:
            self._say(f"port {self._wished} is taken: Prefect gets {self.port} (PREFECT_SERVER_API_PORT sets it)")
        env = server_env(self._base, self._home, self.api_url)
        os.makedirs(env["PREFECT_HOME"], exist_ok=True)
        argv = [
            sys.executable,
            "-m",
            "proactive_prefect.daemon.embedded",
            "server",
            "start",
            "--host",
            self._host,
            "--port",
            str(self.port),
        ]
        self.child = Child("Prefect server", argv, env, self._home / "logs" / "server.log", self._say)
        await self.child.start()
        return self.child

    async def wait_healthy(self) -> None:
        """Wait until it answers. Raises PrefectError, with its last log lines, if it keeps dying or takes too long."""
        child = self.child
        assert child is not None  # started before it is waited for
        hint = f"Its log: {child.log}; `proactive doctor` checks the versions that Prefect needs."
        try:
            async with asyncio.timeout(_LONGEST_START), httpx.AsyncClient(timeout=5) as http:
                while not await self._healthy(http):
                    if child.restarts >= _DIED_OFTEN:
                        raise PrefectError(f"the Prefect server does not start: {child.tail()}", hint=hint)
                    await asyncio.sleep(0.1)
        except TimeoutError:
            message = f"the Prefect server did not answer within {_LONGEST_START:g} s: {child.tail()}"
            raise PrefectError(message, hint=hint) from None

    async def _healthy(self, http: httpx.AsyncClient) -> bool:
        pid = self.child.pid if self.child else None
        # A neighbour that took the port meanwhile answers too: only the listener that we started counts.
        if pid is None or not listens(pid, self.port):
            return False
        try:
            answer = await http.get(f"{self.api_url}/health")
        except httpx.HTTPError:
            return False
        return answer.status_code < 500


def base_env(home: Path, config: Path, tag: Mapping[str, str]) -> dict[str, str]:
    """What all processes below `up` inherit: the user's environment, absolute paths, and the tag of this `up`."""
    return {
        **CLIENT_DEFAULTS,
        **os.environ,
        **tag,
        "PROACTIVE_HOME": str(home),
        "PROACTIVE_CONFIG": str(config),
        "PYTHONUNBUFFERED": "1",
    }


def may_name_an_api() -> bool:
    """Whether Prefect's settings may name a server: a cheap look that spares the seconds of importing Prefect.

    Prefect reads them from the environment, `.env`, `prefect.toml`, `pyproject.toml` and a profile.
    """
    if os.environ.get("PREFECT_API_URL") or os.environ.get("PREFECT_PROFILE"):
        return True
    prefect_home = Path(os.environ.get("PREFECT_HOME") or Path.home() / ".prefect")
    profiles = Path(os.environ.get("PREFECT_PROFILES_PATH") or prefect_home / "profiles.toml")
    signs = {
        Path(".env"): "prefect_api_url",
        Path("prefect.toml"): "url",
        Path("pyproject.toml"): "[tool.prefect",
        profiles: "prefect_api_url",
    }
    for path, sign in signs.items():
        with contextlib.suppress(OSError):
            if sign in path.read_text(errors="replace").lower():
                return True
    return False
