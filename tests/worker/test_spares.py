"""Spare processes by themselves: forked from a clean process, gone without a trace."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import psutil
import pytest

from proactive_prefect.worker.spares import Spares

from ..support import wait_until

_ASKED = {"PREFECT_CLIENT_SERVER_VERSION_CHECK_ENABLED": "false", "PREFECT_CLIENT_CSRF_SUPPORT_ENABLED": "false"}
_NO_ROOM = """
import os

fork, left = os.fork, [1]


def no_room():
    if left and left.pop():
        raise BlockingIOError(11, "Resource temporarily unavailable")
    return fork()


os.fork = no_room
"""


async def test_a_fork_that_fails_harms_no_other_process(tmp_path: Path) -> None:
    """As where there may be no more processes: the forkserver lives on, and forks again when it can."""
    (tmp_path / "no_room.py").write_text(_NO_ROOM)
    env = {**os.environ, "PYTHONPATH": str(tmp_path), "PREFECT_API_URL": "http://127.0.0.1:9/api", **_ASKED}
    spares = Spares(size=0, preload=["no_room"], env=env, logger=logging.getLogger("test"))
    await spares.start()
    try:
        generation = await spares._current()
        with pytest.raises(ChildProcessError):
            await generation.fork()
        spare = await generation.fork()
        assert spare.alive
        assert not generation._by_number
        spare.channel.close()
        assert await spare.ended() == 0
    finally:
        await spares.end()


async def test_spares_that_are_all_gone_come_back() -> None:
    """Killed together, as for lack of memory: the next run forks for itself, and they are made anew behind it."""
    env = {**os.environ, **_ASKED, "PREFECT_API_URL": "http://127.0.0.1:9/api"}
    spares = Spares(size=2, preload=[], env=env, logger=logging.getLogger("test"))
    await spares.start()
    try:
        generation = await spares._current()
        await wait_until(lambda: len(generation.idle) == 2, what="two idle spares")
        gone = list(generation.idle)
        for spare in gone:
            spare.kill()
        await wait_until(lambda: not any(spare.alive for spare in gone), what="both are gone")
        taken = await spares.take()
        assert taken.alive
        await wait_until(lambda: sum(spare.alive for spare in generation.idle) == 2, what="two idle spares again")
    finally:
        await spares.end()


@pytest.mark.skipif(not os.path.isdir("/proc/self/task"), reason="needs /proc")
async def test_spares_come_and_go_without_a_trace() -> None:
    """The forkserver has one thread; forty processes later there are as many open files and children as before."""
    env = {**os.environ, **_ASKED, "PREFECT_API_URL": "http://127.0.0.1:9/api"}  # no server: none is asked before a run
    spares = Spares(size=2, preload=[], env=env, logger=logging.getLogger("test"))
    me = psutil.Process()
    await spares.start()
    try:
        generation = await spares._current()
        server = next(child for child in me.children() if "proactive_prefect.worker.forkserver" in child.cmdline())
        assert server.num_threads() == 1
        await wait_until(lambda: len(generation.idle) == 2, what="two idle spares")
        files = me.num_fds()
        for _ in range(40):
            spare = await spares.take()
            spare.channel.close()  # as a worker that has no use for it
            assert await spare.ended() == 0
        await wait_until(lambda: len(generation.idle) == 2, what="two idle spares again")
        assert len(server.children()) == 2
        assert me.num_fds() == files
    finally:
        await spares.end()
    assert not server.is_running() or server.status() == psutil.STATUS_ZOMBIE
