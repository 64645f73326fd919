"""The processes that `proactive up` runs: each in its own group, started again when it dies."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from ..lifeline import die_with_parent

Say = Callable[[str], None]
_LARGEST_LOG = 10_000_000
_LONGEST_BACKOFF = 30.0
_STEADY = 60.0  # alive for so long, a process counts as well again: the backoff starts anew


class Child:
    """One supervised process: `name` for people, `argv`, `env`, and the file its output is appended to.

    From `start` until `end` it is kept alive: when it dies, that is said, and it is started again after a backoff
    that doubles from half a second to half a minute.
    """

    def __init__(self, name: str, argv: Sequence[str], env: Mapping[str, str], log: Path, say: Say) -> None:
        self.name = name
        self.log = log
        self.restarts = 0
        self._argv = list(argv)
        self._env = dict(env)
        self._say = say
        self._process: asyncio.subprocess.Process | None = None
        self._keeper: asyncio.Task[None] | None = None

    @property
    def pid(self) -> int | None:
        """The process id, or None while it is not running."""
        process = self._process
        return process.pid if process is not None and process.returncode is None else None

    async def start(self) -> None:
        """Start it, and keep it alive from now on."""
        if self.log.exists() and self.log.stat().st_size > _LARGEST_LOG:
            self.log.replace(self.log.with_suffix(".old.log"))
        self._process = await self._spawn()
        self._keeper = asyncio.create_task(self._keep())

    def stop_keeping(self) -> None:
        """From now on let it die: `up` is ending."""
        if self._keeper is not None:
            self._keeper.cancel()

    async def end(self, *, grace: float) -> None:
        """SIGTERM to the process, SIGKILL to what is left of its group after `grace` seconds."""
        self.stop_keeping()
        process = self._process
        if process is None:
            return
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(grace):
                    await process.wait()
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(1):
                await process.wait()

    def tail(self, lines: int = 3) -> str:
        """The last lines of its log, for an error message."""
        with contextlib.suppress(OSError):
            text = self.log.read_text(errors="replace").strip().splitlines()
            return " / ".join(line.strip() for line in text[-lines:])
        return ""

    async def _spawn(self) -> asyncio.subprocess.Process:
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as out:
            self.log.chmod(0o600)
            return await asyncio.create_subprocess_exec(
                *self._argv,
                env=self._env,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                start_new_session=True,
                preexec_fn=die_with_parent,
            )

    async def _keep(self) -> None:
        backoff = 0.5
        while True:
            assert self._process is not None  # started before it is kept
            began = time.monotonic()
            code = await self._process.wait()
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process = None  # its id may soon be another's
            if time.monotonic() - began > _STEADY:
                backoff = 0.5
            what = f"ended ({describe_exit(code)})"
            while self._process is None:
                self._say(f"{self.name} {what}; starting it again in {backoff:g} s, see {self.log}")
                await asyncio.sleep(backoff)
                backoff = min(backoff * 2, _LONGEST_BACKOFF)
                self.restarts += 1
                try:
                    self._process = await self._spawn()
                except OSError as error:  # no process, memory or file is to be had: that passes
                    what = f"cannot be started ({error})"


def describe_exit(code: int) -> str:
    """An exit code in words: "exit code 1", "SIGKILL"."""
    if code < 0:
        with contextlib.suppress(ValueError):
            return signal.Signals(-code).name
    return f"exit code {code}"
