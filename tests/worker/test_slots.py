"""The limits that a worker keeps by itself."""

from __future__ import annotations

import json
from uuid import uuid4

from prefect.client.schemas.objects import FlowRun

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
