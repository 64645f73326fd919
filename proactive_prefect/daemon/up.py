"""`proactive up`: everything on this machine, started together, kept alive, and ended with nothing left behind."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Coroutine, Iterator
from typing import Any

from ..settings import Settings
from . import guard
from .declared import Declared
from .everything import Everything
from .report import Report
from .upfile import only_one, remove_up_file

_LAST_KILL = 1.0


def up(settings: Settings, declared: Declared, report: Report) -> None:
    """Run the project until SIGINT, SIGTERM or (not under `nohup`) SIGHUP. Raises ProactiveError if it cannot start."""
    home = settings.home.resolve()
    settings = settings.model_copy(update={"home": home, "config": declared.config})
    tag = secrets.token_hex(16)
    with only_one(home, tag) as earlier:
        remove_up_file(home)  # a crash left it
        if earlier is not None and (killed := guard.kill_tagged(earlier)):
            report.say(f"ended {killed} processes that an earlier `proactive up` left behind")
        with _guarded(tag):
            asyncio.run(_run(Everything(settings, declared, tag, report), report))


async def _run(everything: Everything, report: Report) -> None:
    """Start and keep until a signal; end within five seconds, at once on a second signal."""
    ends, hurry = asyncio.Event(), asyncio.Event()

    def asked() -> None:
        (hurry if ends.is_set() else ends).set()

    numbers = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # else `nohup` is to keep it alive without its terminal
        numbers.append(signal.SIGHUP)
    for number in numbers:
        asyncio.get_running_loop().add_signal_handler(number, asked)
    try:
        await _unless(ends, everything.run())
    finally:
        ends.set()
        began = time.monotonic()
        await _unless(hurry, everything.end())
        report.say(f"ended after {time.monotonic() - began:.1f} s")


async def _unless(event: asyncio.Event, work: Coroutine[Any, Any, None]) -> None:
    """Do `work`, or what of it is done when `event` is set. Raises what the work raises."""
    working = asyncio.create_task(work)
    waiting = asyncio.create_task(event.wait())
    await asyncio.wait({working, waiting}, return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()
    if not working.done():
        working.cancel()
        with contextlib.suppress(asyncio.CancelledError, Exception):  # it was told to stop where it stood
            await working
        return
    working.result()


@contextlib.contextmanager
def _guarded(tag: str) -> Iterator[None]:
    """Have a process of its own kill all that carries the tag, should this one be killed; kill the rest at the end."""
    watch = subprocess.Popen(
        [sys.executable, "-P", guard.__file__, tag],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        yield
    finally:
        guard.kill_tagged(tag, within=_LAST_KILL)
        watch.kill()
        watch.wait()
