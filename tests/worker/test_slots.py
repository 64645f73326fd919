"""The limits that a worker keeps by itself."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from uuid import uuid4

from prefect.client.schemas.objects import FlowRun, WorkPool, WorkQueue

from proactive_prefect.worker.slots import Slots


def run(owner: str | None = None) -> FlowRun:
    """A run of a rule of `owner`; without one, of a plain flow."""
    return FlowRun(flow_id=uuid4(), parameters={"rule": json.dumps({"owner": owner})} if owner else {})


def test_a_worker_has_a_limit_of_runs_at_once() -> None:
    """`--limit 2`: a third run waits, and it is news when one of the two ends."""
    slots = Slots(2)
    assert slots.admits(run(), [run()])
    assert not slots.is_news()
    assert not slots.admits(run(), [run(), run()])
    assert slots.is_news()
    assert not slots.is_news()


def test_an_owner_has_a_limit_of_runs_at_once() -> None:
    """PROACTIVE_WORKER_OWNER_LIMIT=1: a second run of an owner waits, those of others and of nobody do not."""
    slots = Slots(None, of_an_owner=1)
    at_work = [run("agent-1"), run()]
    assert not slots.admits(run("agent-1"), at_work)
    assert slots.is_news()
    assert slots.admits(run("agent-2"), at_work)
    assert slots.admits(run(), at_work)


def test_a_broken_rule_has_no_owner() -> None:
    """What a run carries comes from outside: a text that is no rule limits nobody."""
    for rule in ("not json", "[]", 7, None):
        assert Slots(None, of_an_owner=1).admits(FlowRun(flow_id=uuid4(), parameters={"rule": rule}), [run("a")])


def test_who_waited_longest_for_a_deployment_s_slot_goes_next() -> None:
    """However often it was refused, a run waits once; one that goes, or has ended elsewhere, waits no more."""
    slots, deployment = Slots(None), uuid4()
    at = datetime(2026, 3, 4, tzinfo=UTC)
    older, newer = (
        FlowRun(flow_id=uuid4(), deployment_id=deployment, expected_start_time=at + timedelta(minutes=n))
        for n in (0, 1)
    )
    for each in (newer, older, newer, older):
        slots.wait(each)
    assert slots.next_of(uuid4()) is None
    assert slots.next_of(deployment) is older
    slots.forget(older.id)
    assert slots.next_of(deployment) is newer
    slots.forget(newer.id)
    assert slots.next_of(deployment) is None


def test_whether_any_run_may_start_is_known_of_the_pool_and_its_queues() -> None:
    """Where a limit, a pause or a choice of queues decides which run goes first, Prefect has to be asked."""
    pool = WorkPool(name="p", type="proactive", default_queue_id=uuid4())
    queue = WorkQueue(name="q", work_pool_id=uuid4())
    slots = Slots(None)
    assert not slots.unlimited  # nothing is known yet
    slots.know(pool, [queue])
    assert slots.unlimited
    for case in (queue.model_copy(update={"concurrency_limit": 3}), queue.model_copy(update={"is_paused": True})):
        slots.know(pool, [queue, case])
        assert not slots.unlimited
    slots.know(pool.model_copy(update={"concurrency_limit": 3}), [queue])
    assert not slots.unlimited
    for other in (Slots(2), Slots(None, chosen=True)):
        other.know(pool, [queue])
        assert not other.unlimited
