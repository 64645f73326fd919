"""What a run's life meets besides running: hooks, suspension, limits, priorities, code from elsewhere, checks."""

from __future__ import annotations

import asyncio
import subprocess
import time
from datetime import timedelta
from typing import Any

import httpx
import psutil
import pytest
from prefect.client.schemas.actions import WorkPoolUpdate
from prefect.flow_runs import asuspend_flow_run
from prefect.states import Completed, Pending, Running, Scheduled

from benchmarks.harness import CountingProxy
from proactive_prefect.prefect_api.creating import CAUSE_LABEL
from proactive_prefect.prefect_api.deployments import TAG
from proactive_prefect.rules.models import HeartbeatRule, to_snapshot
from proactive_prefect.settings import Settings

from ..conftest import Server
from ..support import free_port, wait_until
from .conftest import Project, now

_FLOWS = """
import os, signal, time
from pathlib import Path
from prefect import flow, task
from prefect.flow_runs import suspend_flow_run


def note(file, word):
    with open(file, "a") as out:
        out.write(f"{word} {os.getpid()} {time.time()}\\n")


def told(flow, flow_run, state):
    note(flow_run.parameters["file"], f"told:{state.type.value}")


@flow(on_crashed=[told], on_cancellation=[told])
def hooked(file: str, deaf: bool = False):
    if deaf:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    note(file, "began")
    while True:
        time.sleep(0.1)


@flow
def asks(file: str):
    note(file, "asked")
    suspend_flow_run(timeout=300)
    note(file, "answered")


@task
def step(file: str):
    note(file, "step")
    time.sleep(0.2)


@flow
def steps(file: str, count: int):
    for _ in range(count):
        step(file)
    note(file, "through")


@flow
def place(file: str):
    note(file, f"in:{os.getcwd()}:{os.environ.get('WHO')}")
    note(file, f"zone:{time.strftime('%z')}")
"""


async def _deploy(project: Project, *flows: str) -> None:
    (project.folder / "life.py").write_text(_FLOWS)
    for flow in flows:
        await project.deploy(flow, f"life.py:{flow}")


async def test_hooks_are_told_of_an_end_that_the_process_could_not_tell(project: Project) -> None:
    """`on_crashed` runs after kill -9 of the run's process, `on_cancellation` of a run that heeds it or not."""
    await _deploy(project, "hooked")
    await project.worker()
    files = {word: project.folder / f"{word}.txt" for word in ("killed", "cancelled", "deaf")}
    runs = {word: await project.start("hooked", file=str(file), deaf=word == "deaf") for word, file in files.items()}
    for file in files.values():
        await wait_until(lambda file=file: file.exists() and "began" in file.read_text(), what="the flow began")
    pid = int(files["killed"].read_text().split()[1])
    next(process for process in project.processes() if process.pid == pid).kill()
    for word in ("cancelled", "deaf"):
        await project.cancel(runs[word])
    for word, state in (("killed", "Crashed"), ("cancelled", "Cancelled"), ("deaf", "Cancelled")):
        await project.ended(runs[word], state)
        hook = "told:CRASHED" if word == "killed" else "told:CANCELLING"
        told = files[word]
        await wait_until(lambda told=told, hook=hook: hook in told.read_text(), what=f"{hook} of {word}")
        assert told.read_text().count("told:") == 1


async def test_a_suspended_run_leaves_its_process_and_comes_back_when_resumed(project: Project) -> None:
    """A flow that suspends itself, and one that is suspended from outside: no process waits; Resume runs it on."""
    await _deploy(project, "asks", "steps")
    await project.worker()
    run = await project.start("asks")
    await project.ended(run, "Suspended")
    (asked,) = project.lines("asked")
    await wait_until(lambda: asked.pid not in [each.pid for each in project.processes()], what="its process is gone")
    await project.client.resume_flow_run(run.id)
    await project.ended(run, "Completed")
    assert len(project.lines("answered")) == 1

    long = await project.start("steps", count=200)
    (first, *_) = await project.wrote("step")
    await asuspend_flow_run(flow_run_id=long.id, timeout=300)
    await wait_until(lambda: first.pid not in [each.pid for each in project.processes()], what="it stopped")
    await project.ended(long, "Suspended")
    assert not project.lines("through")


async def test_what_was_asked_while_no_events_came_is_heeded(project: Project, prefect_server: Server) -> None:
    """Cancelled and suspended while the worker's way to the server was cut: it learns of both when it is back."""
    await _deploy(project, "steps")
    async with CountingProxy(prefect_server.api_url) as proxy:
        await project.worker(PREFECT_API_URL=f"http://127.0.0.1:{proxy.port}/api")
        slow = await project.start("slow")
        await project.wrote("began")
        steps = await project.start("steps", count=1000)
        await project.wrote("step")
        proxy.cut()
        await project.cancel(slow)
        await asuspend_flow_run(flow_run_id=steps.id, timeout=300)
        await proxy.mend()
        await project.ended(slow, "Cancelled")
        await project.wrote("cleaned")
        (step, *_) = project.lines("step")
        await wait_until(lambda: step.pid not in [each.pid for each in project.processes()], what="the other stopped")
        await project.ended(steps, "Suspended")


async def test_limits_of_a_deployment_and_of_a_queue(project: Project) -> None:
    """One at a time, by the deployment's limit or its queue's, and the next begins as soon as the slot is free."""
    queue = await project.client.create_work_queue("narrow", work_pool_name=project.pool, concurrency_limit=1)
    await project.worker()
    for nth, options in enumerate(({"concurrency_limit": 1}, {"work_queue_name": queue.name})):
        await project.deploy("slow", **options)
        words = [f"{nth}a.", f"{nth}b."]
        runs = [await project.start("slow", seconds=2, word=word) for word in words]
        for run in runs:
            await project.ended(run, "Completed", timeout=90)
        first, second = sorted(next(line.at for line in project.lines(word)) for word in words)
        assert 2 <= second - first < 20  # Prefect alone would look again after 30 s


async def test_a_paused_pool_begins_no_run_that_waited_for_a_slot(project: Project) -> None:
    """The slot of a deployment's limit becomes free while the pool is paused: who waits for it goes after the pause."""
    await project.deploy("slow", concurrency_limit=1)
    await project.worker()
    holder = await project.start("slow", seconds=60, word="holder.")
    await project.wrote("holder.")
    waits = await project.start("slow", seconds=6, word="waits.")
    await project.ended(waits, "AwaitingConcurrencySlot")
    await project.client.update_work_pool(project.pool, WorkPoolUpdate(is_paused=True))
    await project.cancel(holder)
    await project.ended(holder, "Cancelled")
    at_rest = 2 + Settings().worker_spares  # the worker and its forkserver; nothing that runs
    looks: list[int] = []

    def rests() -> bool:
        looks.append(len(project.processes()))
        return looks[-20:] == [at_rest] * 20

    await wait_until(rests, what="the worker is at rest, and stays so")
    released = time.time()
    await project.client.update_work_pool(project.pool, WorkPoolUpdate(is_paused=False))
    await project.ended(waits, "Completed", timeout=90)
    assert project.lines("waits.")[0].at > released


async def test_a_paused_pool_leaves_the_worker_at_rest(project: Project) -> None:
    """A run that it knows of becomes due meanwhile: the worker does not ask for it again and again, and stays awake."""
    worker = await project.worker()
    await project.start("slow")
    await project.wrote("began")
    due = now() + timedelta(seconds=4)
    later = await project.start("quick", at=due)
    await project.client.update_work_pool(project.pool, WorkPoolUpdate(is_paused=True))
    await wait_until(lambda: now() > due + timedelta(seconds=1), what="its instant has passed")
    spent = sum(psutil.Process(worker.pid).cpu_times()[:2])
    await wait_until(lambda: now() > due + timedelta(seconds=5), what="four seconds have passed")
    assert sum(psutil.Process(worker.pid).cpu_times()[:2]) - spent < 2
    assert not project.lines("ran")
    await project.client.update_work_pool(project.pool, WorkPoolUpdate(is_paused=False))
    await project.ended(later, "Completed", timeout=90)


async def test_a_run_to_come_hides_none_that_is_due(project: Project) -> None:
    """A pool with one slot: what a queue of higher priority has for later does not keep it from others."""
    high = await project.client.create_work_queue("first", work_pool_name=project.pool, priority=1)
    await project.client.update_work_queue(
        (await project.client.read_work_queue_by_name("default", project.pool)).id, priority=5
    )
    await project.client.update_work_pool(project.pool, WorkPoolUpdate(concurrency_limit=1))
    await project.deploy("quick_async", work_queue_name=high.name)
    await project.deploy("quick")
    await project.start("quick_async", at=now() + timedelta(seconds=200))
    due = now() + timedelta(seconds=20)
    await project.start("quick", at=due)
    await project.worker()
    (line,) = await project.wrote("ran")
    assert line.at - due.timestamp() < 5


async def test_a_run_that_is_scheduled_behind_a_full_pool_begins_at_its_instant(project: Project) -> None:
    """Prefect does not tell of it while the pool has no free slot; it is asked again when it has one."""
    await project.client.update_work_pool(project.pool, WorkPoolUpdate(concurrency_limit=1))
    await project.worker()
    await project.start("slow", seconds=12)  # beyond the looks that follow a change of a deployment
    await project.wrote("began")
    due = now() + timedelta(seconds=25)
    later = await project.start("quick", at=due)
    await project.ended(later, "Completed", timeout=90)
    (line,) = project.lines("ran")
    assert 0 <= line.at - due.timestamp() < 10  # Prefect finds it late after 15 s


async def test_a_flow_that_is_loaded_ahead_of_a_claim_that_is_lost_does_not_begin(project: Project) -> None:
    """Its process ends with the refusal; when the slot is free, another loads it, and it runs once."""
    await project.deploy("quick", concurrency_limit=1)
    holder = await project.start("quick")
    for state in (Pending(), Running()):  # by nobody's worker
        await project.client.set_flow_run_state(holder.id, state)
    await project.worker()
    at_rest = 2 + Settings().worker_spares  # the worker and its forkserver
    await wait_until(lambda: len(project.processes()) == at_rest, what="all spares are ready")
    run = await project.start("quick")

    async def refused_twice() -> bool:
        """At the second try, half a minute later, the worker knows that it is alone."""
        history = await project.client.read_flow_run_states(run.id)
        return sum(state.name == "AwaitingConcurrencySlot" for state in history) >= 2

    await wait_until(refused_twice, what="its claim is lost twice", timeout=120)
    await wait_until(lambda: len(project.processes()) == at_rest, what="its process ended")
    assert not project.lines("ran")
    await project.client.set_flow_run_state(holder.id, Completed())
    await project.ended(run, "Completed", timeout=90)
    assert len(project.lines("ran")) == 1


async def test_a_run_that_is_skipped_leaves_its_room_to_the_next(project: Project) -> None:
    """A worker with room for one: what is due together with a run that its rule's gate skips begins right after."""
    action: Any = {"type": "python", "call": "flows:quick"}
    conditions: Any = {"custom": "due.year > 3000"}
    never = HeartbeatRule(id="never", every=timedelta(hours=1), action=action, conditions=conditions)
    await project.deploy("quick", tags=[TAG], enforce_parameter_schema=False)
    await project.deploy("quick_async")
    await project.worker("--limit", "1")
    due = now() + timedelta(seconds=12)  # beyond the look that follows the deployments
    skipped = await project.client.create_flow_run_from_deployment(
        project.deployments["quick"],
        parameters={"file": str(project.file), "rule": to_snapshot(never)},
        labels={CAUSE_LABEL: "schedule"},
        state=Scheduled(scheduled_time=due),
    )
    await project.start("quick_async", at=due + timedelta(milliseconds=1))
    (line,) = await project.wrote("ran")
    assert line.at - due.timestamp() < 5  # a look of the worker's own accord comes later
    await project.ended(skipped, "Skipped")


async def test_queues_go_by_priority_and_may_be_paused(project: Project) -> None:
    """Runs of a paused queue wait, alone; released, those of the queue with the better priority go first."""
    client = project.client
    for name, priority in (("later", 20), ("sooner", 2)):
        await client.create_work_queue(name, work_pool_name=project.pool, priority=priority, is_paused=True)
    runs = []
    for name in ("later", "sooner"):
        await project.deploy("quick", work_queue_name=name)
        runs.append(await project.start("quick", word=f"{name}."))
    await project.worker("--limit", "1")
    await project.deploy("quick")
    await project.ended(await project.start("quick", word="free."), "Completed")
    assert [line.word for line in project.lines()] == ["free."]
    await client.update_work_pool(project.pool, WorkPoolUpdate(is_paused=True))
    for name in ("later", "sooner"):
        found = await client.read_work_queue_by_name(name, work_pool_name=project.pool)
        await client.update_work_queue(found.id, is_paused=False)
    await client.update_work_pool(project.pool, WorkPoolUpdate(is_paused=False))
    for run in runs:
        await project.ended(run, "Completed")
    assert [line.word for line in project.lines()] == ["free.", "sooner.", "later."]


async def test_code_from_a_repository_and_the_variables_of_a_job(project: Project) -> None:
    """A `git_clone` pull step is run for each run; `env` and `working_dir` are the run's own."""
    origin = project.folder / "origin"
    origin.mkdir()
    (origin / "life.py").write_text(_FLOWS)
    for command in ("init -q -b main", "add .", "-c user.name=t -c user.email=t@localhost commit -q -m first"):
        await asyncio.to_thread(subprocess.run, ["git", *command.split()], cwd=origin, check=True)
    clone = {"prefect.deployments.steps.git_clone": {"repository": f"file://{origin}", "branch": "main"}}
    await project.deploy(
        "place", "life.py:place", pull_steps=[clone], job_variables={"env": {"WHO": "somebody", "TZ": "Asia/Tokyo"}}
    )
    await project.worker()
    await project.ended(await project.start("place"), "Completed")
    folder = project.folder / "elsewhere"
    folder.mkdir()
    (folder / "life.py").write_text(_FLOWS)
    await project.deploy("place", "life.py:place", pull_steps=[], job_variables={"working_dir": str(folder)})
    await project.ended(await project.start("place"), "Completed")
    cloned, placed = project.lines("in:")
    assert cloned.word.endswith("origin:somebody") or cloned.word.endswith("origin-main:somebody")
    assert placed.word == f"in:{folder}:None"
    assert [line.word for line in project.lines("zone:")] == ["zone:+0900", "zone:+0000"]


async def test_a_health_check_answers(project: Project) -> None:
    """`prefect worker start --with-healthcheck` answers on its port."""
    port = str(free_port())
    await project.worker("--with-healthcheck", PREFECT_WORKER_WEBSERVER_PORT=port)
    async with httpx.AsyncClient() as client:
        assert (await client.get(f"http://127.0.0.1:{port}/health")).status_code == 200


@pytest.mark.slow
async def test_a_slot_that_another_worker_frees_is_used_soon(project: Project) -> None:
    """Two workers, a deployment's limit of one: who was refused hears that the other's run has ended."""
    await project.deploy("slow", concurrency_limit=1)
    await project.worker("--limit", "1")
    first = await project.start("slow", seconds=15, word="first.")
    await project.wrote("first.")
    await project.worker()
    second = await project.start("slow", seconds=0, word="second.")
    await project.ended(first, "Completed")
    await project.ended(second, "Completed")
    ended = (await project.client.read_flow_run(first.id)).end_time
    assert ended is not None
    assert project.lines("second.")[0].at - ended.timestamp() < 10
