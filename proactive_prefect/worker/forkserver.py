"""The process that all runs are forked from: small, clean, single-threaded.

It has imported Prefect and what it was told to preload, holds no connection and no event loop, and does nothing
but fork and tell who ended and how. So a fork of it is a process that is ready in milliseconds and shares nothing
with any other run.

It ends when the worker does (the control socket closes), and takes every run with it: children carry the
kernel's parent-death signal, and their process groups are killed, so that not even a grandchild is left.
"""

from __future__ import annotations

import array
import contextlib
import gc
import importlib
import json
import os
import signal
import socket
import sys
import sysconfig
import time
from pathlib import Path
from selectors import EVENT_READ, DefaultSelector

from ..lifeline import die_with_parent
from .wire import Message

_FILES_A_MESSAGE = 100
_CLOCK_GRAIN = 0.02  # seconds by which the time of a file may be behind the clock's

# What a run imports on its way to its first line: imported once here instead of in each run.
_WARM = (
    "anyio._backends._asyncio",
    "asyncio.runners",
    "encodings.idna",
    "h11",
    "httpcore",
    "httpx",
    "prefect",
    "prefect._experimental",
    "prefect.client.orchestration",
    "prefect.deployments.steps.core",
    "prefect.deployments.steps.pull",
    "prefect.engine",
    "prefect.events.worker",
    "prefect.filesystems",
    "prefect.flow_engine",
    "prefect.logging.handlers",
    "prefect.runtime",
    "prefect.runtime.flow_run",
    "prefect.task_engine",
    "prefect.task_runners",
    "pydantic.v1",
    "rich._emoji_codes",
    "proactive_prefect.worker.child",
)


def _user_files(since: float) -> dict[str, float]:
    """The files of imported modules that are the user's own, with their modification times.

    One that was modified `since` the imports began (epoch seconds) may have been read before that: its time is 0, which
    differs from any. Installed packages are left out: they change with a new environment, which means a new worker.
    """
    installed = tuple(
        {sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")} | {"<frozen"}
    )
    files: dict[str, float] = {}
    for module in list(sys.modules.values()):
        name = getattr(module, "__file__", None)
        if not name or name.startswith(installed):
            continue
        with contextlib.suppress(OSError):
            modified = Path(name).stat().st_mtime
            files[name] = 0.0 if since <= modified <= time.time() else modified
    return files


def _preload(modules: list[str]) -> dict[str, str]:
    """Import `modules`; what failed, with why. A module that starts a thread is told: forking it would be unsafe."""
    failed: dict[str, str] = {}
    for name in modules:
        threads = len(os.listdir("/proc/self/task"))
        try:
            importlib.import_module(name)
        except Exception as error:
            failed[name] = f"{type(error).__name__}: {error}"
        if len(os.listdir("/proc/self/task")) > threads:
            failed[name] = "starts a thread when it is imported, which a fork would break"
    return failed


class Forkserver:
    """The loop of the forkserver over its `control` socket to the worker."""

    def __init__(self, control: socket.socket, files: dict[str, float]) -> None:
        self._control = control
        self._files = files
        self._children: set[int] = set()

    def _tell(self, message: Message) -> None:
        self._control.send(json.dumps(message).encode())

    def serve(self, failed: dict[str, str]) -> socket.socket | None:
        """Fork on request until the worker is gone. Returns in the children too: with their socket to the worker.

        `failed` is told to the worker first: what could not be preloaded, and why.
        """
        names = sorted(self._files)
        for start in range(0, len(names), _FILES_A_MESSAGE):
            self._tell({"files": {name: self._files[name] for name in names[start : start + _FILES_A_MESSAGE]}})
        self._tell({"ready": os.getpid(), "failed": failed})
        wakeup, on_signal = socket.socketpair()
        for end in (wakeup, on_signal):
            end.setblocking(False)
        signal.set_wakeup_fd(on_signal.fileno(), warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        with DefaultSelector() as selector:
            selector.register(self._control, EVENT_READ)
            selector.register(wakeup, EVENT_READ)
            while True:
                for key, _ in selector.select():
                    if key.fileobj is wakeup:
                        wakeup.recv(4096)
                        self._reap()
                    else:
                        order = self._order()
                        if order is None:
                            signal.set_wakeup_fd(-1)
                            self._kill_all()
                            return None
                        number, child_end = order
                        if self._fork(number) == 0:
                            signal.set_wakeup_fd(-1)
                            for end in (wakeup, on_signal, self._control):
                                end.close()
                            return child_end
                        child_end.close()

    def _order(self) -> tuple[int, socket.socket] | None:
        """The number of a child to fork and its end of the socket to the worker; None when the worker is gone."""
        size = array.array("i").itemsize
        try:
            data, ancillary, _, _ = self._control.recvmsg(4096, socket.CMSG_SPACE(size))
        except ConnectionResetError:
            return None
        if not data:
            return None
        (_, _, handle) = ancillary[0]
        (fd,) = array.array("i", handle[:size])
        return int(json.loads(data)["fork"]), socket.socket(fileno=fd)

    def _fork(self, number: int) -> int | None:
        """The new process's id; 0 in the new process. None if there can be none: the worker sees its socket closed."""
        server = os.getpid()
        try:
            pid = os.fork()
        except OSError as error:  # too many processes, or too little memory: those that are there go on
            sys.stderr.write(f"The forkserver cannot fork: {error}\n")
            return None
        if pid == 0:
            die_with_parent()
            if os.getppid() != server:  # it died before the line above
                os._exit(1)
            os.setsid()
            for number_of in (signal.SIGCHLD, signal.SIGINT, signal.SIGTERM):
                signal.signal(number_of, signal.SIG_DFL)
            signal.signal(signal.SIGINT, signal.default_int_handler)
            return 0
        self._children.add(pid)
        self._tell({"forked": number, "pid": pid})
        return pid

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            self._children.discard(pid)
            self._tell({"ended": pid, "status": os.waitstatus_to_exitcode(status)})

    def _kill_all(self) -> None:
        for pid in self._children:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)


def main() -> None:
    """`python -m proactive_prefect.worker.forkserver FD MODULES`: serve the worker that holds the other end of FD."""
    control = socket.socket(fileno=int(sys.argv[1]))
    # The worker decides when this process ends; a Ctrl-C in its terminal reaches the whole group.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    began = time.time() - _CLOCK_GRAIN
    broken = _preload([*_WARM])
    if broken:
        raise SystemExit(f"the forkserver cannot import what it needs: {broken}")
    failed = _preload(json.loads(sys.argv[2]))
    from . import seam
    from .child import Clients, rehearse, run_one

    seam.share_tls()
    seam.complete_models()
    seam.quieten_engine()
    seam.print_plainly()
    seam.leave_schemas()
    rehearse()
    clients = Clients()
    gc.collect()
    gc.freeze()  # keeps the collector from touching, and so copying, the pages that all runs share
    server = Forkserver(control, _user_files(began))
    try:
        child_end = server.serve(failed)
    except BrokenPipeError:
        return  # the worker is gone
    if child_end is not None:
        run_one(child_end, clients)


if __name__ == "__main__":
    main()
