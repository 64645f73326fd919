"""Runs a program so that it ends when it should, whatever it does: see `keeper.py`, which sees to that."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import anyio

from ..errors import ActionError

GRACE = 2.0  # seconds from SIGTERM to SIGKILL
_KEEPER = str(Path(__file__).with_name("keeper.py"))
_SLACK = 5.0

Sink = Callable[[bytes], object]


@dataclass(frozen=True)
class Ended:
    """How a program ended: with an exit code, or by a signal."""

    code: int
    signal: int = 0

    def __str__(self) -> str:
        if not self.signal:
            return f"exit code {self.code}"
        with contextlib.suppress(ValueError):
            return f"killed by {signal.Signals(self.signal).name}"
        return f"killed by signal {self.signal}"


async def run_kept(
    argv: Sequence[str],
    *,
    stdin: bytes,
    stdout: Sink,
    stderr: Sink,
    env: Mapping[str, str] | None = None,
    grace: float = GRACE,
) -> Ended:
    """Run `argv` (no shell) to its end, giving it `stdin` and its output to the sinks as it comes.

    When this returns or raises, nothing that the program started is left. Cancelled: SIGTERM to its process group, and
    SIGKILL to all of it `grace` seconds later. Killed together with its whole process: the program is killed too.
    Raises ActionError where the program cannot be started; what a sink raises ends the program at once.
    """
    lifeline_end, lifeline = os.pipe()  # ours is the end that is written
    status, status_end = os.pipe()  # ours is the end that is read
    try:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-I", "-S", _KEEPER, str(lifeline_end), str(status_end), *argv),
            stdin=PIPE,
            stdout=PIPE,
            stderr=PIPE,
            env=env,
            pass_fds=(lifeline_end, status_end),
            start_new_session=True,
        )
    except BaseException as error:
        os.close(lifeline)
        os.close(status)
        if isinstance(error, OSError | ValueError):  # too long, or with a NUL in it
            raise ActionError(f"{argv[0]} cannot be started: {error}") from None
        raise
    finally:
        os.close(lifeline_end)
        os.close(status_end)

    assert process.stdin is not None  # all three are pipes
    assert process.stdout is not None
    assert process.stderr is not None
    said: list[str] = []
    keeper = asyncio.create_task(_read_status(status, said, argv[0]))
    tasks = [
        keeper,
        asyncio.create_task(_feed(process.stdin, stdin)),
        asyncio.create_task(_drain(process.stdout, stdout)),
        asyncio.create_task(_drain(process.stderr, stderr)),
    ]
    try:
        await _follow(keeper, tasks)
    except asyncio.CancelledError:
        with contextlib.suppress(OSError):
            os.write(lifeline, f"{grace}\n".encode())
        with anyio.CancelScope(shield=True):
            await asyncio.wait(tasks, timeout=grace + _SLACK)
        raise
    finally:
        os.close(lifeline)
        with anyio.CancelScope(shield=True):
            await _end(process, keeper, tasks, said)
    return _verdict(said, argv[0])


async def _follow(keeper: asyncio.Task[None], tasks: list[asyncio.Task[None]]) -> None:
    """Until the keeper has given its verdict, and then until the pipes are empty; the first error of any ends it."""
    pending = set(tasks)
    while keeper in pending:
        done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    if pending:
        done, _ = await asyncio.wait(pending, timeout=_SLACK)
        for task in done:
            task.result()


async def _feed(pipe: asyncio.StreamWriter, data: bytes) -> None:
    # A program need not read what it is given.
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        pipe.write(data)
        await pipe.drain()
    pipe.close()
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        await pipe.wait_closed()


async def _drain(pipe: asyncio.StreamReader, sink: Sink) -> None:
    while chunk := await pipe.read(65536):
        sink(chunk)


async def _read_status(status: int, said: list[str], program: str) -> None:
    reader = asyncio.StreamReader()
    protocol = asyncio.StreamReaderProtocol(reader)
    transport, _ = await asyncio.get_running_loop().connect_read_pipe(lambda: protocol, os.fdopen(status, "rb", 0))
    try:
        while line := await reader.readline():
            said.append(line.decode().strip())
    finally:
        transport.close()
    if not _has_verdict(said):
        raise ActionError(f"{program}: the process that kept it was killed, so it was ended too")


def _has_verdict(said: list[str]) -> bool:
    return any(line.startswith(("exit", "signal")) for line in said)


async def _end(process: Process, keeper: asyncio.Task[None], tasks: list[asyncio.Task[None]], said: list[str]) -> None:
    """See the keeper out. Only if it does not do its work within `_SLACK` (killed, stopped): do it in its stead."""
    pumps = [task for task in tasks if task is not keeper]
    for task in pumps:
        task.cancel()
    await asyncio.gather(*pumps, return_exceptions=True)
    # What nobody wants any more is read all the same: asyncio closes a pipe, and is done, only at its end.
    rest = [asyncio.create_task(_drain(pipe, len)) for pipe in (process.stdout, process.stderr) if pipe is not None]
    rest += [keeper, asyncio.create_task(_wait(process))]
    _, late = await asyncio.wait(rest, timeout=_SLACK)
    if not _has_verdict(said):
        for line in said:
            if line.startswith("started "):
                with contextlib.suppress(OSError):
                    os.killpg(int(line.removeprefix("started ")), signal.SIGKILL)
    if late:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        _, late = await asyncio.wait(late, timeout=_SLACK)
    for task in late:
        task.cancel()
    await asyncio.gather(*rest, return_exceptions=True)


async def _wait(process: Process) -> None:
    await process.wait()


def _verdict(said: list[str], program: str) -> Ended:
    for line in said:
        word, _, value = line.partition(" ")
        if word == "failed":
            raise ActionError(f"{program} cannot be started: {os.strerror(int(value))}")
        if word == "exit":
            return Ended(int(value))
        if word == "signal":
            return Ended(-int(value), int(value))
    raise AssertionError("unreachable: the status was read to its verdict")
