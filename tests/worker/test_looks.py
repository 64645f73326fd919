"""When the worker looks for runs again."""

from __future__ import annotations

import logging
import time
from typing import Any
from uuid import UUID, uuid4

import pytest
from prefect.client.schemas.objects import FlowRun, WorkPool, WorkQueue
from prefect.exceptions import ObjectNotFound
from prefect.states import Paused, Scheduled, State

from proactive_prefect.worker.looks import Looks
from proactive_prefect.worker.slots import Slots


class Uncommitted:
    """The server's answers in the moment between an event and the commit of what it tells, which no test can hold."""

    def __init__(self, state: State[Any] | None) -> None:
        self._state = state

    async def read_work_pool(self, _: str) -> WorkPool:
        return WorkPool(name="p", type="proactive", default_queue_id=uuid4())

    async def read_work_queues(self, _: str) -> list[WorkQueue]:
        return [WorkQueue(name="q", work_pool_id=uuid4())]

    async def get_scheduled_flow_runs_for_work_pool(self, *_: object, **__: object) -> list[Any]:
        return []

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

    looks = Looks("p", [], Slots(None), begin=begin, begun=begun, logger=logging.getLogger())
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


async def test_a_run_that_is_found_needs_no_other_look() -> None:
    """It is begun, and the next look is the slow one."""
    looks, begun = await _looked(Scheduled())
    assert len(begun) == 1
    assert looks.far.next() > time.time() + 60
