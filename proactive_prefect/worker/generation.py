"""One forkserver and the processes forked from it, as the worker sees them."""

from __future__ import annotations

import array
import asyncio
import contextlib
import json
import os
import signal
import socket
import sys
import time
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path

from . import wire

_LAST_WORDS = 0.5  # seconds in which what a process has said is read after its end
_LOOK_AGAIN = 0.1  # seconds for which files are taken to be what they were


class Spare:
    """One forked process: waits for an order, or runs it. `pid` is also its process group."""

    def __init__(self, channel: wire.Channel) -> None:
        self.channel = channel
        self._pid: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._status: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    @property
    def pid(self) -> int:
        """The process id; InvalidStateError before the process was forked."""
        return self._pid.result()

    @property
    def alive(self) -> bool:
        """Whether the process has not ended yet, as far as is known."""
        return not self._status.done()

    async def forked(self) -> int:
        """Wait for the process id. Raises ChildProcessError if the forkserver ends before it forks."""
        return await asyncio.shield(self._pid)

    async def ended(self) -> int:
        """Wait for the exit status; negative is the signal that killed it."""
        return await asyncio.shield(self._status)

    def kill(self, number: signal.Signals = signal.SIGKILL) -> None:
        """Send a signal to the process; SIGKILL goes to all that it started too."""
        if not self._pid.done() or not self.alive:
            return
        with contextlib.suppress(ProcessLookupError):
            if number == signal.SIGKILL:
                os.killpg(self.pid, number)
            else:
                os.kill(self.pid, number)

    def _note_forked(self, pid: int) -> None:
        if not self._pid.done():
            self._pid.set_result(pid)

    def _note_ended(self, status: int) -> None:
        if not self._status.done():
            self._status.set_result(status)
        if self._pid.done():
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, signal.SIGKILL)  # what it started and left behind
        else:
            self._pid.set_exception(ChildProcessError("the process ended before it was forked"))
            self._pid.exception()  # it may be that nobody waits for it
        # What it said last may not have been read yet; and what it left behind may hold its end of the channel open.
        asyncio.get_running_loop().call_later(_LAST_WORDS, self.channel.close)


class Generation:
    """One forkserver and what was forked from it. Changed code makes a new generation; the old one's runs finish."""

    def __init__(self, preload: Sequence[str], env: Mapping[str, str]) -> None:
        self._preload = preload
        self._env = env
        self._by_number: dict[int, Spare] = {}
        self._by_pid: dict[int, Spare] = {}
        self._counter = 0
        self._gone = asyncio.Event()
        self.idle: deque[Spare] = deque()
        self.failed: dict[str, str] = {}
        self.retired = False
        self._files: dict[str, float] = {}
        self._changed: list[str] = []
        self._looked_at = 0.0

    async def start(self) -> None:
        """Start the forkserver and wait until it has imported everything. Raises RuntimeError if it does not start."""
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._control.setblocking(False)
        command = [sys.executable, "-m", "proactive_prefect.worker.forkserver"]
        with theirs:
            self._process = await asyncio.create_subprocess_exec(
                *command,
                str(theirs.fileno()),
                json.dumps(list(self._preload)),
                pass_fds=[theirs.fileno()],
                env=dict(self._env),
                stdin=asyncio.subprocess.DEVNULL,
            )
        loop = asyncio.get_running_loop()
        self._ready: asyncio.Future[None] = loop.create_future()
        loop.add_reader(self._control.fileno(), self._hear)
        await self._ready

    def _hear(self) -> None:
        try:
            data = self._control.recv(65536)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._note_gone()
            return
        message = json.loads(data)
        if "ready" in message:
            self.failed = message["failed"]
            self._ready.set_result(None)
        elif "forked" in message:
            spare = self._by_number.pop(message["forked"])
            self._by_pid[message["pid"]] = spare
            spare._note_forked(message["pid"])
        elif "ended" in message:
            if (child := self._by_pid.pop(message["ended"], None)) is not None:
                if child in self.idle:
                    self.idle.remove(child)
                child._note_ended(message["status"])
            self._close_if_done()
        elif "files" in message:
            self._files.update(message["files"])

    def _note_gone(self) -> None:
        """The forkserver died: so did its children, by the parent-death signal."""
        asyncio.get_running_loop().remove_reader(self._control.fileno())
        self._control.close()
        self.retired = True
        self.idle.clear()
        for spare in [*self._by_number.values(), *self._by_pid.values()]:
            spare._note_ended(-signal.SIGKILL)
        self._by_number.clear()
        self._by_pid.clear()
        self._gone.set()
        if not self._ready.done():
            self._ready.set_exception(RuntimeError("the forkserver ended while it was starting"))

    def changed(self) -> list[str]:
        """The files that the forkserver has imported and that are not what they were, as of a moment ago."""
        if self._changed or time.monotonic() - self._looked_at < _LOOK_AGAIN:
            return self._changed
        self._looked_at = time.monotonic()

        def is_changed(name: str, before: float) -> bool:
            try:
                return Path(name).stat().st_mtime != before
            except OSError:
                return True

        self._changed = [name for name, before in self._files.items() if is_changed(name, before)]
        return self._changed

    async def fork(self) -> Spare:
        """Fork one spare and wait until it is ready for a run. Raises ChildProcessError if it ends before that."""
        if self._gone.is_set():
            raise ChildProcessError("the forkserver is gone")
        ours, theirs = socket.socketpair()
        self._counter += 1
        number = self._counter
        with theirs:
            spare = Spare(await wire.Channel.open(ours))
            self._by_number[number] = spare
            order = json.dumps({"fork": number}).encode()
            fds = array.array("i", [theirs.fileno()])
            try:
                self._control.sendmsg([order], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, fds)])
            except OSError:
                self._forget(number, spare)
                raise
        try:
            await spare.channel.receive()
        except EOFError as end:
            self._forget(number, spare)
            raise ChildProcessError("a spare process ended before it was ready, or could not be forked") from end
        return spare

    def _forget(self, number: int, spare: Spare) -> None:
        if self._by_number.pop(number, None) is not None:  # it was never forked
            spare.channel.close()
            self._close_if_done()

    def retire(self) -> None:
        """Let idle spares go and end when the last run has."""
        self.retired = True
        for spare in self.idle:
            spare.channel.close()
        self.idle.clear()
        self._close_if_done()

    def _close_if_done(self) -> None:
        if self.retired and not self._by_pid and not self._by_number and not self._gone.is_set():
            self._control.shutdown(socket.SHUT_WR)

    async def end(self) -> None:
        """Kill everything that is left."""
        self.retired = True
        if not self._gone.is_set():
            self._control.shutdown(socket.SHUT_WR)
        await self._process.wait()
