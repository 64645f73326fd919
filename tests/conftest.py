"""A real Prefect server for the whole test session, on a free port, on its embedded database."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from xdist.scheduler import LoadScopeScheduling

from proactive_prefect.lifeline import die_with_parent

from .security.tried import TRIED
from .support import free_port, wait_until_sync

EMBEDDED = "proactive_prefect.daemon.embedded"  # Prefect's server as `proactive up` starts it
_LONGEST = ["acceptance", "worker", "chaos", "daemon"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what needs the Prefect server or a browser; begin with what takes longest, and mostly waits."""
    for item in items:
        if {"prefect_server", "life", "running", "browser"} & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.server)
    items.sort(key=lambda item: _LONGEST.index(_room(item.nodeid)) if _room(item.nodeid) in _LONGEST else len(_LONGEST))


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LoadScopeScheduling:
    """Where several processes run the tests: those of a file stay together, and so do all of acceptance/."""

    class Rooms(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return "acceptance" if _room(nodeid) == "acceptance" else nodeid.partition("::")[0]

    return Rooms(config, log)


def _room(nodeid: str) -> str:
    return nodeid.removeprefix("tests/").partition("/")[0]


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Where several processes run the tests, each leaves its counts to the one that tells."""
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["tried"] = dict(TRIED)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Take over what a process has counted."""
    TRIED.update(getattr(node, "workeroutput", {}).get("tried", {}))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Tell how many inputs were tried."""
    for what, count in sorted(TRIED.items()):
        terminalreporter.write_line(f"tried {count:>9,} inputs: {what}")


def pytest_make_parametrize_id(val: object, argname: str) -> str | None:
    """Leave bytes out of names: what is packed has the time in it, and every process must find the same names."""
    return f"{argname}-{len(val)}-bytes" if isinstance(val, bytes) and not val.isascii() else None


@dataclass(frozen=True)
class Server:
    """A running Prefect server: the URL of its API, and an environment in which Prefect's client and CLI use it."""

    api_url: str
    env: dict[str, str]
    log: Path


def start_server(home: Path, port: int = 0, **settings: str) -> tuple[Server, subprocess.Popen[bytes]]:
    """Start a Prefect server whose files are all in `home`, with these settings, and wait until it is healthy.

    `port` 0 is a free one.
    """
    port = port or free_port()
    api_url = f"http://127.0.0.1:{port}/api"
    env = {
        **{name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "PROACTIVE_"))},
        "PREFECT_HOME": str(home),
        "PREFECT_API_URL": api_url,
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
        "PREFECT_CLI_PROMPT": "false",
        "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": "prefect.server.concurrency.lease_storage.filesystem",
        # As `proactive up` starts it: reading schedules is 17 times cheaper, and runs that wait are left in peace.
        "PYTHONTZPATH": "",
        "PREFECT_SERVER_SERVICES_LATE_RUNS_AFTER_SECONDS": "300",
        **settings,
    }
    log = home / "server.log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", EMBEDDED, "server", "start", "--host", "127.0.0.1", "--port", str(port)],
            env=env,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=die_with_parent,
        )

    def healthy() -> bool:
        assert process.poll() is None, f"the Prefect server ended: {log.read_text()[-2000:]}"
        try:
            return httpx.get(f"{api_url}/health", timeout=5).status_code == 200
        except httpx.HTTPError:
            return False

    try:
        wait_until_sync(healthy, what=f"a Prefect server on port {port}", timeout=280)
    except BaseException:
        stop(process)
        raise
    return Server(api_url, env, log), process


def stop(process: subprocess.Popen[bytes]) -> None:
    """End a process and all of its group."""
    try:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(15)
    except ProcessLookupError:
        return
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(15)


@pytest.fixture(scope="session")
def prefect_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A real Prefect server; the environment of the test session points at it."""
    server, process = start_server(tmp_path_factory.mktemp("prefect"))
    before = dict(os.environ)
    os.environ.update({name: value for name, value in server.env.items() if name.startswith(("PREFECT_", "DO_NOT"))})
    from prefect.settings import PREFECT_API_URL, temporary_settings

    try:
        # Prefect reads the environment once, when it is imported: by a test module, before this.
        with temporary_settings({PREFECT_API_URL: server.api_url}):
            yield server
    finally:
        os.environ.clear()
        os.environ.update(before)
        stop(process)
