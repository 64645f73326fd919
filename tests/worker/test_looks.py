"""When the worker looks for runs again."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterable
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest
from prefect.client.schemas.objects import FlowRun, WorkPool, WorkQueue
from prefect.exceptions import ObjectNotFound
from prefect.states import Paused, Scheduled, State

from proactive_prefect.worker.looks import Looks
from proactive_prefect.worker.slots import Slots

from ..support import wait_until

_LOG = logging.getLogger("test")


class Uncommitted:
    """The server's answers in the moment between an event and the commit of what it tells, which no test can hold."""

    def __init__(self, state: State[Any] | None, offered: Iterable[FlowRun] = ()) -> None:
        self._state = state
        self.offered: list[Any] = [SimpleNamespace(flow_run=run) for run in offered]

    async def read_work_pool(self, _: str) -> WorkPool:
        return WorkPool(name="p", type="proactive", default_queue_id=uuid4())

    async def read_work_queues(self, _: str) -> list[WorkQueue]:
        return [WorkQueue(name="q", work_pool_id=uuid4())]

    async def get_scheduled_flow_runs_for_work_pool(self, *_: object, **__: object) -> list[Any]:
        return self.offered

    async def read_flow_run(self, run_id: UUID) -> FlowRun:
        if self._state is None:
            raise ObjectNotFound(Exception())
        due = self._state.state_details.scheduled_time
        return FlowRun(id=run_id, flow_id=uuid4(), state=self._state, next_scheduled_start_time=due)


async def _looked(state: State[Any] | None) -> tuple[Looks, dict[UUID, FlowRun]]:
    """After an event that tells of a run which the server has in `state`."""
    begun: dict[UUID, FlowRun] = {}

    def begin(run: FlowRun) -> None:
        begun[run.id] = run

    looks = Looks("p", [], Slots(None), begin=begin, begun=begun, logger=_LOG)
    client: Any = Uncommitted(state)
    assert looks.far.take()
    await looks.look(client, 0.0, far=True)
    looks.far.done(time.time())
    looks.seek(uuid4())
    await looks.look(client, 0.0, far=False)
    return looks, begun


@pytest.mark.parametrize("state", [None, Paused()], ids=["made", "resumed"])
async def test_a_run_that_is_told_of_before_it_is_committed_is_looked_for_again(state: State[Any] | None) -> None:
    """Soon, and not only at the next slow look, minutes later."""
    looks, begun = await _looked(state)
    assert not begun
    assert looks.far.next() < time.time() + 0.2


async def test_a_full_answer_is_asked_for_more_soon() -> None:
    """Prefect gives 200 runs at a time: the rest do not wait for the next slow look."""
    due = datetime.now(UTC)
    offered = [FlowRun(flow_id=uuid4(), state=Scheduled(), next_scheduled_start_time=due) for _ in range(200)]
    client: Any = Uncommitted(None, offered)
    looks = Looks("p", [], Slots(None), begin=lambda _: None, begun={}, logger=_LOG)
    looks.far.take()
    await looks.look(client, 0.0, far=True)
    looks.far.done(time.time())
    assert looks.far.next() < time.time() + 10


async def test_a_run_that_was_put_off_is_not_begun_before() -> None:
    """However often it is found; and at once when a slot is free for it and the server has room."""
    begun: dict[UUID, FlowRun] = {}
    run = FlowRun(flow_id=uuid4(), state=Scheduled(), next_scheduled_start_time=datetime.now(UTC))

    def begin(run: FlowRun) -> None:
        begun[run.id] = run

    looks = Looks("p", [], Slots(None), begin=begin, begun=begun, logger=_LOG)
    client: Any = Uncommitted(None, offered=[run])
    until = time.time() + 5
    looks.put_off(run.id, until)
    for far in (True, False, True):
        await looks.look(client, 0.0, far=far)
        assert not begun
    assert looks.alarm.has(until)
    looks.hasten(run)
    assert looks.far.take()
    await looks.look(client, 0.0, far=True)
    assert list(begun) == [run.id]


async def test_what_a_look_was_to_find_is_looked_for_again_when_it_fails() -> None:
    """An event told of a run, and the server answered the look with an error: all is looked through, soon."""

    class Failing(Uncommitted):
        async def read_flow_run(self, run_id: UUID) -> FlowRun:
            raise httpx.HTTPError("it cannot now")

    class Hearing:
        connected = True

    begun: dict[UUID, FlowRun] = {}
    run = FlowRun(flow_id=uuid4(), state=Scheduled(), next_scheduled_start_time=datetime.now(UTC))
    looks = Looks("p", [], Slots(None), begin=lambda run: begun.update({run.id: run}), begun=begun, logger=_LOG)
    client: Any = Failing(None)
    ears: Any = Hearing()
    watching = asyncio.create_task(looks.watch(client, ears))
    await wait_until(lambda: looks.far.next() > time.time() + 60, what="the first look is over")
    client.offered.append(SimpleNamespace(flow_run=run))
    looks.seek(run.id)
    await wait_until(lambda: run.id in begun, what="the run is begun", timeout=30)
    watching.cancel()


async def test_a_run_that_is_found_needs_no_other_look() -> None:
    """It is begun, and the next look is the slow one."""
    looks, begun = await _looked(Scheduled())
    assert len(begun) == 1
    assert looks.far.next() > time.time() + 60
