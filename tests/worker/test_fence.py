"""Of two proposals that exclude each other Prefect takes one, in whatever order they come."""

from __future__ import annotations

import logging
from uuid import UUID, uuid4

import pytest
from prefect.client.schemas.objects import FlowRun, State
from prefect.client.schemas.responses import SetStateStatus
from prefect.states import Cancelled, Completed, Crashed, Pending, Running

from proactive_prefect.prefect_api.fence import Fence
from proactive_prefect.worker.states import States

from .conftest import Project


async def _claimed(project: Project) -> tuple[FlowRun, States]:
    run = await project.start("quick")
    states = States(project.client, signed=f"Claimed by {uuid4()}", logger=logging.getLogger())
    assert (await states.claim(run)).won
    return run, states


async def _ask(project: Project, run: FlowRun, state: State[None]) -> SetStateStatus:
    """What the run's process asks for, whenever that comes."""
    fence = Fence(run)
    return (await fence.propose(project.client, state, fence.of(state.type))).status


async def _ends(project: Project, run: FlowRun) -> list[str]:
    return [state.name or "" for state in await project.client.read_flow_run_states(run.id) if state.is_final()]


async def test_an_end_that_comes_after_the_worker_told_another_is_refused(project: Project) -> None:
    """The process was killed while it asked for Completed, and Prefect had it only after Crashed."""
    run, states = await _claimed(project)
    await _ask(project, run, Running())
    assert await states.crashed(run.id, "killed", Fence(run))
    assert await _ask(project, run, Completed()) == SetStateStatus.REJECT
    assert await _ends(project, run) == ["Crashed"]


@pytest.mark.parametrize("end", [Crashed(), Cancelled()], ids=["crashed", "cancelled"])
async def test_an_end_that_comes_before_the_worker_tells_another_stays(project: Project, end: State[None]) -> None:
    """What the worker read a moment before, Running, is true no more."""
    run, states = await _claimed(project)
    await _ask(project, run, Running())
    fence = Fence(run)
    assert await _ask(project, run, Completed()) == SetStateStatus.ACCEPT
    answer = await fence.propose(project.client, end, fence.after(Running().type))
    assert answer.status != SetStateStatus.ACCEPT
    assert not await states.crashed(run.id, "killed", fence)
    assert await _ends(project, run) == ["Completed"]


async def test_a_beginning_that_comes_after_the_end_is_refused(project: Project) -> None:
    """The process was killed while it asked for Running."""
    run, states = await _claimed(project)
    assert await states.crashed(run.id, "killed", Fence(run))
    assert await _ask(project, run, Running()) == SetStateStatus.REJECT
    assert await _ends(project, run) == ["Crashed"]


async def test_a_beginning_that_comes_first_is_followed_by_the_end(project: Project) -> None:
    """The worker read Pending; then Running came, and its own proposal is refused; it looks again."""
    run, states = await _claimed(project)
    fence = Fence(run)
    assert await _ask(project, run, Running()) == SetStateStatus.ACCEPT
    assert (await fence.propose(project.client, Crashed(), fence.after(Pending().type))).status == SetStateStatus.REJECT
    assert await states.crashed(run.id, "killed", fence)
    assert await _ends(project, run) == ["Crashed"]


async def test_what_a_dead_worker_held_is_fenced_by_its_successor(project: Project) -> None:
    """It knows the run as it is now: given back if it had not begun, else Crashed; a late request undoes neither."""
    run, states = await _claimed(project)
    await states.give_back(run, "given back", Fence(await project.client.read_flow_run(run.id)))
    assert await _ask(project, run, Running()) == SetStateStatus.REJECT
    assert (await states.claim(await project.client.read_flow_run(run.id))).won
    assert await _ask(project, run, Running()) == SetStateStatus.ACCEPT
    await states.crashed(run.id, "died", Fence(await project.client.read_flow_run(run.id)))
    assert await _ask(project, run, Completed()) == SetStateStatus.REJECT
    assert await _ends(project, run) == ["Crashed"]


async def test_a_claim_that_comes_after_another_workers_run_has_ended_is_lost(project: Project) -> None:
    """Prefect would take it for the wish to run it again."""
    run, _ = await _claimed(project)
    late = States(project.client, signed="Claimed by a late one", logger=logging.getLogger())
    assert not (await late.claim(run)).won  # while it is Pending
    await _ask(project, run, Running())
    assert not (await late.claim(run)).won
    await _ask(project, run, Completed())
    assert not (await late.claim(run)).won
    assert await _ends(project, run) == ["Completed"]


async def test_a_claim_that_comes_after_another_workers_process_was_killed_is_undone(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was killed before it began, and its run is Crashed: the late worker finds that, and gives the end back."""
    run, states = await _claimed(project)
    late = States(project.client, signed="Claimed by a late one", logger=logging.getLogger())

    async def saw_it_free_before(_: UUID) -> bool:
        return await states.crashed(run.id, "killed", Fence(run))

    monkeypatch.setattr(late, "_is_free", saw_it_free_before)
    assert not (await late.claim(run, contested=True)).won
    now = (await project.client.read_flow_run(run.id)).state
    assert now is not None
    assert (now.name, now.message) == ("Crashed", "killed")
    assert await _ask(project, run, Running()) == SetStateStatus.REJECT  # of the killed process; it was on its way


async def test_a_claim_that_is_sent_twice_is_won(project: Project) -> None:
    """Its answer was lost, and the client sent it again."""
    run, states = await _claimed(project)
    assert (await states.claim(run)).won
