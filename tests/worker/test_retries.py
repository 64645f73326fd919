"""Retries of a flow, which wait in its own process: of no worker while that lives, of any when it is gone."""

from __future__ import annotations

import signal

import pytest

from .conftest import Project, terminate

_FLOWS = """
import os, time
from pathlib import Path
from prefect import flow


def again(file, hangs=False):
    with open(file, "a") as out:
        out.write(f"try {os.getpid()} {time.time()}\\n")
    if len(Path(file).read_text().splitlines()) < 2:
        if hangs:
            time.sleep(60)
        raise ValueError("not yet")


@flow(retries=1, retry_delay_seconds=2)
def soon(file: str):
    again(file)


@flow(retries=1, retry_delay_seconds=15)
def later(file: str):
    again(file)


@flow(retries=1, retry_delay_seconds=1)
def hangs(file: str):
    again(file, hangs=True)
"""


async def _deploy(project: Project, flow: str, **options: object) -> None:
    (project.folder / "again.py").write_text(_FLOWS)
    await project.deploy(flow, f"again.py:{flow}", **options)


async def test_another_worker_leaves_a_retry_to_its_process(project: Project) -> None:
    """Two workers: both tries are of one process."""
    await _deploy(project, "soon")
    await project.worker()
    await project.worker()
    await project.ended(await project.start("soon"), "Completed")
    first, second = project.lines("try")
    assert first.pid == second.pid


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
async def test_a_retry_whose_process_is_gone_is_begun_by_the_next_worker(project: Project, how: signal.Signals) -> None:
    """Its worker was stopped, or killed, while the run waited for its next try."""
    await _deploy(project, "later")
    worker = await project.worker(PROACTIVE_WORKER_GRACE="1")
    run = await project.start("later")
    await project.ended(run, "AwaitingRetry")
    if how == signal.SIGTERM:
        terminate(worker)
    else:
        worker.kill()
        worker.wait(30)
    await project.worker()
    await project.ended(run, "Completed", timeout=90)
    first, second = project.lines("try")
    assert first.pid != second.pid
    assert second.at - first.at > 14


async def test_a_flow_that_is_killed_at_its_time_limit_is_tried_again(project: Project) -> None:
    """As its retries say, in another process, also in a pool with a limit."""
    await _deploy(project, "hangs", concurrency_limit=5, job_variables={"time_limit": 3})
    await project.worker()
    await project.ended(await project.start("hangs"), "Completed", timeout=90)
    first, second = project.lines("try")
    assert first.pid != second.pid
