"""Nothing outlives `proactive up`, not even when it is killed with SIGKILL.

Every process below `up` inherits the environment variable `PROACTIVE_UP` with a value that only this `up` has, also
those that start a session of their own (a worker's runs, a command action). Run as a script, this module holds the
other end of a pipe from `up`; when the pipe closes, it kills all that carry the value.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator

import psutil

TAG = "PROACTIVE_UP"


def tagged(value: str) -> Iterator[psutil.Process]:
    """Every live process of this user, other than the caller, whose environment has `PROACTIVE_UP=value`."""
    for process in psutil.process_iter():
        try:
            if process.pid == os.getpid() or process.status() == psutil.STATUS_ZOMBIE:
                continue
            if process.environ().get(TAG) == value:
                yield process
        except (psutil.Error, OSError):  # gone meanwhile, or another user's
            continue


def kill_tagged(value: str, *, within: float = 3.0) -> int:
    """Kill with SIGKILL all that carry the value, until none is left or `within` seconds are over; how many."""
    deadline = time.monotonic() + within
    killed: set[int] = set()
    while found := list(tagged(value)):
        for process in found:
            killed.add(process.pid)
            try:
                process.kill()
            except psutil.Error:
                continue
        if time.monotonic() > deadline:
            break
        psutil.wait_procs(found, timeout=0.2)
    return len(killed)


def main() -> None:
    """Wait for the end of standard input, then kill all that carry the value in the first argument."""
    sys.stdin.buffer.read()
    kill_tagged(sys.argv[1], within=10)


if __name__ == "__main__":
    main()
