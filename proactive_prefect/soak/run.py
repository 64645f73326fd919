"""Runs a soak: against the `up` of this project, or one in a scratch folder; and takes its rules away again."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from ..daemon.ports import choose_port
from ..daemon.upfile import UpFile, read_up_file
from ..deploy.apply import apply_plan
from ..deploy.compile import Project, compile_rules
from ..deploy.plan import make_plan
from ..errors import ProactiveError
from ..gateway.secrets import webhook_secret
from ..ledger.db import open_ledger
from ..prefect_api import PrefectApi, connect
from ..settings import Settings
from .account import Account, now
from .probes import Prober
from .rules import HOOK, PROJECT, soak_rules
from .slo import Seen

Say = Callable[[str], None]

_READY = 600.0  # seconds for an `up` that is started here
_OPENS = 60.0  # seconds until the gateway knows the soak's webhook
_DRAIN = 120.0  # seconds for what is under way at the end
_BETWEEN_CALLS = 5.0


@dataclass(frozen=True)
class Place:
    """Where a soak runs: the installation's settings on this machine, its `up`, and the folder its runs work in."""

    settings: Settings
    up: UpFile
    folder: Path


@contextlib.asynccontextmanager
async def place(
    settings: Settings, folder: Path, write_project: Callable[[Path], object], say: Say
) -> AsyncIterator[Place]:
    """The `up` that runs for this project; else one in a scratch folder, which is ended and removed afterwards.

    `write_project` writes a new project's files into a folder.
    """
    if (running := read_up_file(settings.home)) is not None:
        yield Place(settings, running, folder)
        return
    with tempfile.TemporaryDirectory(prefix="proactive-soak-") as name:
        scratch = Path(name)
        write_project(scratch)
        (scratch / "proactive.toml").write_text("[proactive]\nenabled = true\n")
        home = scratch / ".proactive"
        env = {key: value for key, value in os.environ.items() if not key.startswith(("PREFECT_", "PROACTIVE_"))}
        env |= {
            "PROACTIVE_HOME": str(home),
            "PROACTIVE_GATEWAY_PORT": str(choose_port("127.0.0.1", 0)),
            "PREFECT_SERVER_API_PORT": str(choose_port("127.0.0.1", 0)),
        }
        say("no `proactive up` runs here: starting one in a scratch folder")
        with (scratch / "up.log").open("wb") as log:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "proactive_prefect.cli", "up"), cwd=scratch, env=env, stdout=log, stderr=log
            )
        try:
            up = await _wait_for(lambda: read_up_file(home), process, scratch / "up.log")
            yield Place(Settings(home=home), up, scratch)
        finally:
            if process.returncode is None:
                process.send_signal(signal.SIGINT)
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(process.wait(), 30)


async def soak(where: Place, duration: timedelta, interval: timedelta, stop: asyncio.Event, say: Say) -> Seen:
    """Run the soak's rules for `duration`, or until `stop`, looking at everything each `interval`.

    Raises ProactiveError where the installation cannot be used.
    """
    seen, rules = Seen(), soak_rules()
    async with open_ledger(where.settings) as ledger, connect(where.settings) as api:
        project = Project(PROJECT, where.folder, where.settings.work_pool)
        await apply_plan(api, await make_plan(api, compile_rules(rules, project), project))
        hook = f"{where.up['gateway_url']}/hooks/{HOOK}"
        secret = webhook_secret(where.settings, HOOK)
        push = where.settings.push_enabled
        prober = Prober(where.up["gateway_url"], where.up["token"], (hook, secret), seen, push=push)
        try:
            await _open(prober, seen)
            since = now() + timedelta(seconds=2)
            await _go_on(prober, seen, duration, interval, stop, say)
            account = Account(ledger, rules, since, now(), prober.accepted)
            await _drain(account, say)
            await account.write(seen)
        finally:
            await prober.close()
            await _forget(api, project)
    return seen


async def _open(prober: Prober, seen: Seen) -> None:
    """Wait until the gateway knows the webhook; what was answered before counts for nothing."""
    deadline = time.monotonic() + _OPENS
    while not prober.accepted:
        if time.monotonic() > deadline:
            raise ProactiveError(
                f"the gateway did not open the soak's webhook within {_OPENS:g} s: {seen.refused_calls[-1:]}",
                hint="`proactive doctor` looks for the reason.",
            )
        await prober.call()
        await asyncio.sleep(1)
    seen.refused_calls.clear()
    seen.calls = len(prober.accepted)


async def _go_on(
    prober: Prober, seen: Seen, duration: timedelta, interval: timedelta, stop: asyncio.Event, say: Say
) -> None:
    end = time.monotonic() + duration.total_seconds()

    async def every(seconds: float, job: Callable[[], object]) -> None:
        while time.monotonic() < end and not stop.is_set():
            began = time.monotonic()
            answer = job()
            if asyncio.iscoroutine(answer):
                await answer
            pause = min(max(0.0, began + seconds - time.monotonic()), max(0.0, end - time.monotonic()))
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), pause)

    async def look() -> None:
        await prober.look()
        left = max(0.0, end - time.monotonic())
        say(f"{left:6.0f} s left: {seen.probes} probes, {len(seen.failed_probes)} failed; {seen.calls} calls")

    await asyncio.gather(every(interval.total_seconds(), look), every(_BETWEEN_CALLS, prober.call))


async def _drain(account: Account, say: Say) -> None:
    """Let what is under way end."""
    deadline = time.monotonic() + _DRAIN
    while (left := await account.open()) and time.monotonic() < deadline:
        say(f"waiting for {len(left)} that are under way")
        await asyncio.sleep(2)


async def _forget(api: PrefectApi, project: Project) -> None:
    """Take the soak's rules away; their runs stay in Prefect's history."""
    await apply_plan(api, await make_plan(api, (), project))


async def _wait_for(ready: Callable[[], UpFile | None], process: asyncio.subprocess.Process, log: Path) -> UpFile:
    deadline = time.monotonic() + _READY
    while (found := ready()) is None:
        if process.returncode is not None or time.monotonic() > deadline:
            said = await asyncio.to_thread(log.read_text)
            raise ProactiveError(f"`proactive up` did not become ready: {said[-1000:]}")
        await asyncio.sleep(0.5)
    return found
