"""A last resort for async actions: one that blocks its event loop cannot be cancelled, and no timeout can fire.

A thread watches whether the loop still turns. Where it has stood still for too long, the log names the line it hangs
at, and the blocking call is interrupted by an exception. Where even that does not help (code in C that never comes
back), the interpreter's fault handler, which needs nothing from Python, prints all stacks and ends the process:
Prefect sees the run as crashed rather than running for ever.
"""

from __future__ import annotations

import asyncio
import ctypes
import faulthandler
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from ..errors import ActionError
from .results import Logger

SLACK = 2.0  # seconds past the timeout before anything is done: the timeout itself comes first
LAST_RESORT = 15.0  # seconds after that
_BEAT = 0.5


class BlockedLoop(ActionError, TimeoutError):
    """An async function kept the event loop to itself, past its timeout, in a call that blocks."""


class _Interrupt(BaseException):
    """Thrown into the blocked thread; not an Exception, so that `except Exception` in a loop does not eat it."""


@contextmanager
def watch(patience: float, logger: Logger, *, slack: float = SLACK, last_resort: float = LAST_RESORT) -> Iterator[None]:
    """Interrupt what runs in here if it blocks the running event loop for `patience` (and some slack) seconds on end.

    Raises BlockedLoop, which names the line, in place of what then comes out.
    """
    watcher = _Watcher(patience + slack, logger)
    loop = asyncio.get_running_loop()
    handle: asyncio.TimerHandle | None = None

    def beat() -> None:
        nonlocal handle
        watcher.beat = time.monotonic()
        faulthandler.dump_traceback_later(patience + slack + last_resort, exit=True, file=2)
        handle = loop.call_later(_BEAT, beat)

    beat()
    with watcher:
        try:
            yield
        except _Interrupt:
            raise BlockedLoop(
                f"blocked the event loop for {watcher.stood:.0f} s at {watcher.place}",
                hint="A call that blocks belongs into a function without async: that one runs in its own process.",
            ) from None
        finally:
            if handle is not None:
                handle.cancel()
            if _active == {watcher}:
                faulthandler.cancel_dump_traceback_later()


_active: set[_Watcher] = set()


class _Watcher(threading.Thread):
    def __init__(self, limit: float, logger: Logger) -> None:
        super().__init__(name="proactive-watch", daemon=True)
        self.beat = time.monotonic()
        self.stood = 0.0
        self.place = ""
        self._limit = limit
        self._logger = logger
        self._thread = threading.get_ident()
        self._main = threading.current_thread() is threading.main_thread()
        self._over = threading.Event()

    def __enter__(self) -> _Watcher:
        if self._main:
            signal.signal(signal.SIGURG, _interrupt)
        _active.add(self)
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        _active.discard(self)

    @property
    def overdue(self) -> bool:
        """Whether the loop has stood still for too long."""
        return time.monotonic() - self.beat > self._limit

    def run(self) -> None:
        while not self._over.wait(_BEAT):
            self.stood = time.monotonic() - self.beat
            if not self.overdue:
                continue
            self.place = _where(sys._current_frames().get(self._thread))
            self._logger.error("The event loop has stood still for %.0f s at %s", self.stood, self.place)
            # A signal also breaks off a call that waits in the kernel; another thread than the first gets none.
            if self._main:
                signal.pthread_kill(self._thread, signal.SIGURG)
            else:
                ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(self._thread), ctypes.py_object(_Interrupt))


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    # Left in place for good: by default the signal is ignored, and so it is here while nobody is overdue.
    if any(watcher.overdue for watcher in _active):
        raise _Interrupt


def _where(frame: FrameType | None) -> str:
    """The innermost line that is the user's: not of the standard library or an installed package."""
    stack = traceback.extract_stack(frame)
    own = [entry for entry in stack if "site-packages" not in entry.filename and not _is_stdlib(entry.filename)]
    if not stack:
        return "an unknown line"
    entry = (own or stack)[-1]
    return f"{os.path.relpath(entry.filename)}:{entry.lineno} in {entry.name}: {entry.line}"


def _is_stdlib(filename: str) -> bool:
    return filename.startswith(("<", os.path.dirname(os.__file__)))
