"""A worker that has run for weeks is as it was after its first hour."""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass
from itertools import pairwise

import psutil
import pytest

from ..support import wait_until
from ..worker.conftest import Project, project

__all__ = ["project"]

_LONG = os.environ.get("PROACTIVE_TEST_CHAOS") == "long"
_RUNS = int(os.environ.get("PROACTIVE_TEST_RUNS", "10000"))
_FIRST = 100
_AT_ONCE = 10
_WAITING = 30  # runs that may wait while others are made: the worker is never without one


@dataclass(frozen=True)
class Size:
    """What a worker holds while it has no run: MiB of its own, open files, and processes; its forkserver's too."""

    memory: float
    files: int
    processes: int


async def _size(project: Project) -> Size:
    """The size at rest: when the spares are complete, and nothing else is there."""
    sizes: list[Size] = []

    def at_rest() -> bool:
        processes = project.processes()
        workers = {worker.pid for worker in project.workers}  # they lead a group of their own, as each run does
        lasting = [each for each in processes if each.pid in workers or each.pid != os.getpgid(each.pid)]
        memory = sum(process.memory_full_info().uss for process in lasting) / 2**20
        sizes.append(Size(memory, sum(process.num_fds() for process in processes), len(processes)))
        return len(sizes) > 5 and len({(size.files, size.processes) for size in sizes[-5:]}) == 1

    def looked() -> bool:
        try:
            return at_rest()
        except (psutil.Error, ProcessLookupError):
            return False  # one of them has just ended

    await wait_until(looked, what="the worker is at rest", timeout=120, every=1)
    return sizes[-1]


@pytest.mark.skipif(not _LONG, reason="the long form: `make chaos`")
@pytest.mark.timeout(6 * 3600)
async def test_a_worker_is_as_small_after_ten_thousand_runs(project: Project) -> None:
    """Memory, open files and spare processes after PROACTIVE_TEST_RUNS runs equal those after the first hundred."""
    await project.worker()

    async def ran(count: int) -> None:
        def enough() -> bool:
            return count <= 0 or (project.file.exists() and project.file.read_bytes().count(b"\n") >= count)

        await wait_until(enough, what=f"{count} runs", timeout=300)

    async def run(first: int, last: int) -> Size:
        for begun in range(first, last, _AT_ONCE):
            await ran(begun - _WAITING)
            await asyncio.gather(*(project.start("quick") for _ in range(min(_AT_ONCE, last - begun))))
        await ran(last)
        return await _size(project)

    await project.deploy("quick")
    looks = [_FIRST, *(_RUNS * tenth // 10 for tenth in range(1, 11) if _RUNS * tenth // 10 > _FIRST)]
    sizes: list[Size] = []
    for begun, until in pairwise([0, *looks]):
        sizes.append(await run(begun, until))
        print(f"\nafter {until} runs: {sizes[-1]}", end="", flush=True)
    first, last = sizes[0], sizes[-1]
    assert last.processes == first.processes
    assert last.files <= first.files + 2  # connections that are kept open or have just been closed
    assert last.memory < first.memory * 1.1
