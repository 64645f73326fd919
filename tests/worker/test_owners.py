"""A worker that dies takes its processes along, and its runs are settled: on restart, or by another worker."""

from __future__ import annotations

import asyncio
import itertools
import json
import signal
import socket
from datetime import timedelta
from pathlib import Path

import pytest
from prefect.client.schemas.actions import WorkPoolUpdate
from prefect.states import Pending

from proactive_prefect.prefect_api.signatures import Owner
from proactive_prefect.worker.owners import Lock

from ..support import wait_until
from .conftest import Project, now

pytestmark = pytest.mark.slow  # workers are given a minute before they count as dead


def test_a_lock_tells_the_dead_from_the_living(tmp_path: Path) -> None:
    """The runs of a worker are another's to settle only once its process is gone, and only for the same pool."""
    mine, living, dead = (Owner("w", "h", f"{number:012x}") for number in range(3))
    with Lock(tmp_path, mine, "pool") as lock, Lock(tmp_path, living, "pool"):
        (tmp_path / "workers" / f"{dead.mark}.json").write_text('{"pool": "pool"}')
        (tmp_path / "workers" / "ffffffffffff.json").write_text('{"pool": "another"}')
        with lock.dead("pool") as marks:
            assert marks == [dead.mark]
        assert not lock.knows(dead.mark)
        assert lock.knows("ffffffffffff")
        with lock.dead("pool") as marks:
            assert marks == []


async def test_a_killed_worker_takes_its_processes_along_and_its_successor_settles_its_runs(project: Project) -> None:
    """kill -9 of a worker: no process of its outlives it; the next worker marks its runs within ten seconds."""
    worker = await project.worker()
    run = await project.start("slow")
    await project.wrote("child")
    at = now() + timedelta(seconds=300)
    later = await project.start("quick", at=at)
    worker.send_signal(signal.SIGKILL)
    worker.wait(30)
    await wait_until(lambda: not project.processes(), what="no process is left")
    assert (await project.client.read_flow_run(run.id)).state_name == "Running"
    await project.worker()
    crashed = await project.ended(run, "Crashed", timeout=20)
    assert crashed.state is not None
    assert "died" in (crashed.state.message or "")
    assert (await project.client.read_flow_run(later.id)).state_name == "Scheduled"


async def test_another_worker_settles_the_runs_of_a_silent_one(project: Project) -> None:
    """A worker on another machine that is gone without a word: its runs are marked about a minute later."""
    first = await project.worker(PROACTIVE_HOME=str(project.folder / "elsewhere"))
    run = await project.start("slow")
    await project.wrote("began")
    second = await project.worker()
    first.send_signal(signal.SIGKILL)
    first.wait(30)
    crashed = await project.ended(run, "Crashed", timeout=150)
    assert crashed.state is not None
    assert "no sign of life" in (crashed.state.message or "")
    assert second.poll() is None


async def test_a_worker_gives_back_what_it_claimed_without_learning_of_it(project: Project) -> None:
    """Its claim came to Prefect when it waited for the answer no more: the run is begun once, a minute later."""
    await project.worker()
    (lock,) = (project.folder / "home" / "workers").glob("*.json")
    facts = json.loads(lock.read_text())
    me = Owner(facts["worker"], socket.gethostname(), facts["mark"])
    run = await project.start("quick", at=now() + timedelta(seconds=20))
    await project.client.set_flow_run_state(run.id, Pending(message=me.claim()), force=True)
    await project.ended(run, "Completed", timeout=120)
    history = [state.name for state in await project.client.read_flow_run_states(run.id)]
    assert history == ["Scheduled", "Pending", "Scheduled", "Pending", "Running", "Completed"]
    assert len(project.lines("ran")) == 1


async def test_two_workers_share_a_pool_and_each_run_runs_once(project: Project) -> None:
    """Whoever claims a run first runs it; the other takes no notice."""
    await asyncio.gather(project.worker(), project.worker())
    runs = [await project.start("quick", word=f"n{number}.") for number in range(12)]
    for run in runs:
        await project.ended(run, "Completed")
    assert sorted(line.word for line in project.lines()) == sorted(f"n{number}." for number in range(12))


_OWNED = """
import json, os, time
from prefect import flow


@flow
def owned(file: str, rule: str, seconds: float):
    for word in ("in", "out"):
        with open(file, "a") as out:
            out.write(f"{word}:{json.loads(rule)['owner']} {os.getpid()} {time.time()}\\n")
        time.sleep(seconds if word == "in" else 0)
"""


async def test_an_owner_s_limit_holds_over_all_workers_of_a_pool(project: Project) -> None:
    """Two workers, an owner's limit of two: never more than two of its runs at once, and other owners do not wait."""
    (project.folder / "owned.py").write_text(_OWNED)
    await project.deploy("owned", "owned.py:owned")
    await asyncio.gather(*(project.worker(PROACTIVE_WORKER_OWNER_LIMIT="2") for _ in range(2)))
    runs = []
    for owner in ("agent", "agent", "agent", "agent", "agent", "another"):
        runs.append(await project.start("owned", rule=json.dumps({"owner": owner}), seconds=2))
    for run in runs:
        await project.ended(run, "Completed", timeout=120)
    steps = [(line.at, change) for word, change in (("in", 1), ("out", -1)) for line in project.lines(f"{word}:agent")]
    assert len(steps) == 10
    at_once = list(itertools.accumulate(change for _, change in sorted(steps)))
    assert max(at_once) <= 2
    (other,) = project.lines("in:another")
    assert other.at < max(line.at for line in project.lines("in:agent"))


async def test_limits_and_pauses_hold(project: Project) -> None:
    """A work pool's limit of one and a deployment's limit of one are kept; a paused pool starts nothing."""
    await project.worker()
    await project.client.update_work_pool(project.pool, WorkPoolUpdate(concurrency_limit=1))
    first, second = [await project.start("slow", seconds=2, word=word) for word in ("one", "two")]
    await project.ended(first, "Completed")
    await project.ended(second, "Completed", timeout=90)
    one, two = [next(line.at for line in project.lines(word)) for word in ("one", "two")]
    assert abs(one - two) >= 2
    await project.client.update_work_pool(project.pool, WorkPoolUpdate(concurrency_limit=None, is_paused=True))
    held = await project.start("quick", word="held")
    other = await project.start("quick", word="other")
    await project.client.update_work_pool(project.pool, WorkPoolUpdate(is_paused=False))
    await project.ended(held, "Completed", timeout=90)
    await project.ended(other, "Completed", timeout=90)
