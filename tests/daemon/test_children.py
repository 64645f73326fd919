"""Processes below `up`: kept alive, ended with their whole group, and never left behind."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from proactive_prefect.daemon import guard
from proactive_prefect.daemon.children import Child, describe_exit

from ..support import wait_until, wait_until_sync

SLEEPER = "import time; time.sleep(600)"


def child(tmp_path: Path, program: str, said: list[str], **env: str) -> Child:
    return Child("part", [sys.executable, "-c", program], {**os.environ, **env}, tmp_path / "part.log", said.append)


def gone(pid: int) -> bool:
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


async def test_a_part_that_dies_is_started_again_and_that_is_said(tmp_path: Path) -> None:
    """A killed process comes back with a new pid; the line names the signal, the wait and the log."""
    said: list[str] = []
    part = child(tmp_path, SLEEPER, said)
    await part.start()
    first = part.pid
    assert first is not None
    os.kill(first, signal.SIGKILL)
    again = await wait_until(lambda: part.pid if part.pid not in (None, first) else None, what="a new process")
    assert said == [f"part ended (SIGKILL); starting it again in 0.5 s, see {tmp_path / 'part.log'}"]
    await part.end(grace=5)
    assert gone(int(again))


async def test_a_part_that_keeps_dying_is_started_less_and_less_often(tmp_path: Path) -> None:
    """The wait before each new start doubles."""
    said: list[str] = []
    part = child(tmp_path, "raise SystemExit(3)", said)
    await part.start()
    await wait_until(lambda: len(said) >= 3, what="three ends")
    await part.end(grace=1)
    assert [line.split("again in ")[1].split(" s")[0] for line in said[:3]] == ["0.5", "1", "2"]
    assert "exit code 3" in said[0]


async def test_a_part_that_cannot_be_started_is_tried_again_and_that_is_said(tmp_path: Path) -> None:
    """An environment that is rebuilt, no process or no memory to be had: what is away for a while is back later."""
    said: list[str] = []
    program, away = tmp_path / "program", tmp_path / "away"
    program.symlink_to(sys.executable)
    part = Child("part", [str(program), "-c", SLEEPER], os.environ, tmp_path / "part.log", said.append)
    await part.start()
    first = part.pid
    assert first is not None
    program.rename(away)
    os.kill(first, signal.SIGKILL)
    await wait_until(lambda: len(said) >= 3, what="two tries in vain")
    assert part.pid is None
    assert said[1].startswith("part cannot be started ([Errno 2] No such file or directory")
    assert [line.split("again in ")[1].split(" s")[0] for line in said[:3]] == ["0.5", "1", "2"]
    away.rename(program)
    await wait_until(lambda: part.pid, what="a new process")
    await part.end(grace=5)


async def test_a_part_is_started_again_though_its_folder_of_logs_was_removed(tmp_path: Path) -> None:
    """The folder is made anew."""
    logs = tmp_path / "logs"
    part = Child("part", [sys.executable, "-c", SLEEPER], os.environ, logs / "part.log", print)
    await part.start()
    first = part.pid
    assert first is not None
    shutil.rmtree(logs)
    os.kill(first, signal.SIGKILL)
    await wait_until(lambda: part.pid not in (None, first), what="a new process")
    assert (logs / "part.log").exists()
    await part.end(grace=5)


async def test_ending_a_part_ends_its_group_even_if_it_ignores_sigterm(tmp_path: Path) -> None:
    """SIGTERM first; what is left of the group after the grace is killed."""
    program = (
        "import signal, subprocess, sys, time\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        f"below = subprocess.Popen([sys.executable, '-c', {SLEEPER!r}])\n"
        "print('below', below.pid, flush=True)\n"
        "time.sleep(600)\n"
    )
    part = child(tmp_path, program, [])
    await part.start()
    line = await wait_until(lambda: part.tail(1) if "below" in part.tail(1) else None, what="the process below")
    await part.end(grace=0.3)
    assert part.pid is None
    await wait_until(lambda: gone(int(line.split()[-1])), what="the end of the process below")


async def test_the_log_of_a_part_is_for_its_owner_only(tmp_path: Path) -> None:
    """Logs may hold what rules print: mode 0600."""
    part = child(tmp_path, "print('hello')", [])
    await part.start()
    await wait_until(lambda: "hello" in part.tail(), what="the output")
    await part.end(grace=1)
    assert (tmp_path / "part.log").stat().st_mode & 0o777 == 0o600


def test_everything_that_carries_the_tag_is_killed_when_up_is(tmp_path: Path) -> None:
    """The guard kills also what has a session of its own, as soon as the other end of its pipe closes."""
    tag = f"test-{os.getpid()}"
    detached = subprocess.Popen(
        [sys.executable, "-c", SLEEPER], env={**os.environ, guard.TAG: tag}, start_new_session=True
    )
    other = subprocess.Popen([sys.executable, "-c", SLEEPER], env={**os.environ, guard.TAG: tag + "-other"})
    watch = subprocess.Popen([sys.executable, "-P", guard.__file__, tag], stdin=subprocess.PIPE)
    try:
        wait_until_sync(lambda: [*guard.tagged(tag)], what="the tagged process")
        assert watch.poll() is None
        assert watch.stdin is not None
        watch.stdin.close()  # what the kernel does when `up` is killed
        assert detached.wait(30) == -signal.SIGKILL
        assert watch.wait(30) == 0
        assert other.poll() is None
    finally:
        for process in (detached, other, watch):
            process.kill()
            process.wait()


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's parent-death signal is Linux only")
def test_a_part_dies_with_its_parent_also_without_the_guard(tmp_path: Path) -> None:
    """The kernel kills a part when the process that started it is killed."""
    program = (
        "import asyncio, os, sys\n"
        "from pathlib import Path\n"
        "from proactive_prefect.daemon.children import Child\n"
        "async def main():\n"
        f"    part = Child('part', [sys.executable, '-c', {SLEEPER!r}], os.environ, Path(sys.argv[1]), print)\n"
        "    await part.start()\n"
        "    print(part.pid, flush=True)\n"
        "    await asyncio.sleep(600)\n"
        "asyncio.run(main())\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", program, str(tmp_path / "log")], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    assert not gone(pid)
    parent.kill()
    parent.wait()
    wait_until_sync(lambda: gone(pid), what="the end of the part")


def test_an_exit_is_told_in_words() -> None:
    """Signals by name, else the exit code."""
    assert describe_exit(-9) == "SIGKILL"
    assert describe_exit(3) == "exit code 3"


async def test_cancelling_up_does_not_wait_for_a_part(tmp_path: Path) -> None:
    """`end` returns within its grace and a little, whatever the part does."""
    part = child(tmp_path, "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n" + SLEEPER, [])
    await part.start()
    async with asyncio.timeout(10):
        await part.end(grace=0.5)
    assert part.pid is None
