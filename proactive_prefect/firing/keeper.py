"""Runs one program and sees to its end: run as a script, between a run's process and the program of an action.

    python -I -S keeper.py LIFELINE STATUS PROGRAM [ARGUMENT …]

The program gets a process group of its own. It is ended, with all of its group and every process that it left behind
(also one that made a session of its own), when

- it has ended itself: nothing that it started stays behind;
- a number of seconds, as text and a newline, arrives on the pipe LIFELINE: SIGTERM, and SIGKILL that much later;
- LIFELINE closes: whoever started this is dead, so SIGKILL at once.

To the pipe STATUS it writes one line each: `started PID`, then `exit CODE`, `signal NUMBER` or `failed ERRNO`.
Standard library only, and little of it: its start is on the way of each action.
"""

# ruff: noqa: SIM105 - contextlib would be a good part of the start

from __future__ import annotations

import os
import select
import signal
import sys
import time

# This is a script, started without the package: one module of it is wanted, not what it would import.
sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
from lifeline import adopt_orphans, die_with_parent  # type: ignore[import-not-found]

del sys.path[0]


def main() -> None:
    """Keep the program that the arguments name."""
    lifeline, status = int(sys.argv[1]), int(sys.argv[2])
    os.set_inheritable(lifeline, False)
    os.set_inheritable(status, False)
    wake, woken = os.pipe()
    os.set_blocking(wake, False)
    os.set_blocking(woken, False)
    signal.set_wakeup_fd(woken, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)  # any handler at all: it is the wake-up that counts
    adopt_orphans()

    program = _start(sys.argv[3:], status)
    verdict: str | None = None
    kill_at: float | None = None
    while verdict is None:
        patience = None if kill_at is None else max(0.0, kill_at - time.monotonic())
        ready = select.select([lifeline, wake], [], [], patience)[0]
        if wake in ready:
            os.read(wake, 4096)
        if lifeline in ready:
            order = os.read(lifeline, 64)
            if not order:
                kill_at = time.monotonic()
            elif kill_at is None:
                _signal_group(program, signal.SIGTERM)
                kill_at = time.monotonic() + float(order)
        verdict = _reap(program)
        if verdict is None and kill_at is not None and time.monotonic() >= kill_at:
            _signal_group(program, signal.SIGKILL)
            kill_at = time.monotonic() + 0.1
    # The verdict comes last: who reads it may rely on nothing being left.
    _signal_group(program, signal.SIGKILL)
    _end_leftovers()
    _say(status, verdict)


def _start(argv: list[str], status: int) -> int:
    ready, go = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.setpgid(0, 0)
            signal.set_wakeup_fd(-1)
            for number in (signal.SIGCHLD, signal.SIGPIPE, signal.SIGXFSZ):
                signal.signal(number, signal.SIG_DFL)  # as they were before Python: programs rely on it
            die_with_parent()
            os.close(go)
            os.read(ready, 1)  # not before STATUS has the id: nothing may run that nobody could find
            os.execvp(argv[0], argv)  # noqa: S606 - no shell is the point
        except OSError as error:
            _say(status, f"failed {error.errno}")
        finally:
            os._exit(127)
    try:
        os.setpgid(pid, pid)  # in both, so that it is done whoever comes first
    except OSError:
        pass
    _say(status, f"started {pid}")
    os.close(go)
    os.close(ready)
    # A program that no longer reads, or writes, must see that: the pipes are its own.
    null = os.open(os.devnull, os.O_RDWR)
    for standard in (0, 1, 2):
        os.dup2(null, standard)
    return pid


def _reap(program: int) -> str | None:
    """Collect every child that has ended; the verdict, if the program is among them."""
    verdict = None
    while True:
        try:
            pid, state = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return verdict
        if pid == 0:
            return verdict
        if pid == program:
            code = os.waitstatus_to_exitcode(state)
            verdict = f"exit {code}" if code >= 0 else f"signal {-code}"


def _end_leftovers() -> None:
    """Kill what is left below: as each parent dies, its children become this process's, until there are none."""
    mine = f"/proc/self/task/{os.getpid()}/children"
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        try:
            with open(mine) as listing:
                for child in listing.read().split():
                    os.kill(int(child), signal.SIGKILL)
        except OSError:
            pass  # no such listing on this system: the group is dead, and that is what can be done
        try:
            if os.waitpid(-1, os.WNOHANG)[0] == 0:
                time.sleep(0.005)
        except ChildProcessError:
            return


def _signal_group(group: int, number: int) -> None:
    try:
        os.killpg(group, number)
    except OSError:
        pass  # gone already


def _say(status: int, line: str) -> None:
    try:
        os.write(status, line.encode() + b"\n")
    except OSError:
        pass  # nobody is left to read it


if __name__ == "__main__":
    main()
