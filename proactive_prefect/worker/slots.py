"""Runs that found no free slot, and whether a slot that becomes free is news to anybody."""

from __future__ import annotations

import json
from collections.abc import Collection
from uuid import UUID

from prefect.client.schemas.objects import FlowRun, WorkPool, WorkQueue


def rule_owner(flow_run: FlowRun) -> str | None:
    """The owner of the rule that the run carries; None without a rule, or an owner."""
    try:
        owner = json.loads(flow_run.parameters["rule"])["owner"]
    except (KeyError, TypeError, ValueError):
        return None
    return owner if isinstance(owner, str) else None


class Slots:
    """What one worker knows of limits: its own, and those it met elsewhere.

    Its own are `at_most` runs at once, and `of_an_owner` runs at once of rules of the same owner; None: no limit.
    `chosen`: it takes from some of the queues only.
    """

    def __init__(self, at_most: int | None, of_an_owner: int | None = None, *, chosen: bool = False) -> None:
        self._at_most = at_most
        self._of_an_owner = of_an_owner
        self._was_full = False
        self._waiting: dict[UUID, FlowRun] = {}
        self._chosen = chosen
        self.limited = False  # whether the pool or one of its queues has a limit, as far as is known
        self.is_open = False  # whether they have none, and none is paused; not before they are known

    @property
    def unlimited(self) -> bool:
        """Whether any run of the pool may start, as far as is known: no limit, pause or choice of queues decides."""
        return self.is_open and self._at_most is None and not self._chosen

    def know(self, pool: WorkPool, queues: Collection[WorkQueue]) -> None:
        """These are the pool and its queues, with their limits and pauses."""
        limits = [pool.concurrency_limit, *(queue.concurrency_limit for queue in queues)]
        self.limited = any(limit is not None for limit in limits)
        self.is_open = not self.limited and not any(queue.is_paused for queue in queues)

    def admits(self, flow_run: FlowRun, at_work: Collection[FlowRun]) -> bool:
        """Whether the worker's own limits leave room for the run; where they do not, that is remembered."""
        full = self._at_most is not None and len(at_work) >= self._at_most
        if self._of_an_owner is not None and (owner := rule_owner(flow_run)) is not None:
            full = full or sum(rule_owner(each) == owner for each in at_work) >= self._of_an_owner
        self._was_full = self._was_full or full
        return not full

    def wait(self, flow_run: FlowRun) -> None:
        """A run was refused its slot of the deployment's limit: it goes next when one of that deployment ends here."""
        self._waiting[flow_run.id] = flow_run

    def forget(self, run_id: UUID) -> None:
        """A run that may have waited for a slot is tried now, or waits no more."""
        self._waiting.pop(run_id, None)

    def next_of(self, deployment_id: UUID | None) -> FlowRun | None:
        """A run of that deployment ended: the one that has waited for its slot since the earliest time, if one does."""
        waiting = [run for run in self._waiting.values() if run.deployment_id == deployment_id]
        return min(waiting, key=lambda run: str(run.expected_start_time or run.created), default=None)

    def is_news(self) -> bool:
        """A run ended: whether others may have waited for the worker's own limit."""
        was_full, self._was_full = self._was_full, False
        return was_full
