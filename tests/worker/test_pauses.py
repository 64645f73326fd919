"""Runs that pause and keep their process, runs that are resumed before they have stopped."""

from __future__ import annotations

import pytest
from prefect.flow_runs import asuspend_flow_run

from ..support import wait_until
from .conftest import Project

_FLOWS = """
import os, time
from prefect import flow, task
from prefect.flow_runs import pause_flow_run


def note(file, word):
    with open(file, "a") as out:
        out.write(f"{word} {os.getpid()} {time.time()}\\n")


@task
def look(file: str, until: str = ""):
    note(file, "looked")
    while until and not os.path.exists(until):
        time.sleep(0.05)


@flow
def pauses(file: str, seconds: int):
    note(file, "asked")
    pause_flow_run(timeout=seconds, poll_interval=1)
    look(file)
    note(file, "answered")


@flow
def looks(file: str, until: str):
    look(file, until)
    look(file)
    note(file, "through")
"""


@pytest.fixture
async def paused(project: Project) -> Project:
    """A project with these flows and a worker."""
    (project.folder / "pausing.py").write_text(_FLOWS)
    for flow in ("pauses", "looks"):
        await project.deploy(flow, f"pausing.py:{flow}")
    await project.worker()
    return project


async def test_a_run_that_pauses_waits_in_its_process_and_goes_on(paused: Project) -> None:
    """Resume lets it go on where it was, up to its end: nothing takes it for suspended."""
    run = await paused.start("pauses", seconds=300)
    await paused.ended(run, "Paused")
    await paused.client.resume_flow_run(run.id)
    await paused.ended(run, "Completed")
    (asked,), (answered,) = paused.lines("asked"), paused.lines("answered")
    assert asked.pid == answered.pid


async def test_a_pause_that_nobody_ends_fails(paused: Project) -> None:
    """The flow's own error, and no run that stays Paused."""
    run = await paused.start("pauses", seconds=2)
    await paused.ended(run, "Failed")
    assert not paused.lines("answered")


async def test_a_paused_run_whose_process_is_killed_has_crashed(paused: Project) -> None:
    """It would otherwise wait for somebody to resume what is gone."""
    run = await paused.start("pauses", seconds=300)
    await paused.ended(run, "Paused")
    (asked,) = paused.lines("asked")
    next(process for process in paused.processes() if process.pid == asked.pid).kill()
    crashed = await paused.ended(run, "Crashed")
    assert crashed.state is not None
    assert "SIGKILL" in (crashed.state.message or "")


async def test_a_run_that_is_resumed_before_it_has_stopped_is_begun_again(paused: Project) -> None:
    """Suspended and resumed while its task was at work: it leaves its process after that task, and comes back."""
    until = paused.folder / "until"
    run = await paused.start("looks", until=str(until))
    (first,) = await paused.wrote("looked")
    await asuspend_flow_run(flow_run_id=run.id, timeout=300)
    await paused.client.resume_flow_run(run.id)
    until.write_text("")
    await wait_until(lambda: first.pid not in [each.pid for each in paused.processes()], what="its process is gone")
    await paused.ended(run, "Completed")
    assert len(paused.lines("through")) == 1
    assert paused.lines("through")[0].pid != first.pid
