"""Runs that found no free slot, and whether a slot that becomes free is news to anybody."""

from __future__ import annotations

from uuid import UUID

from prefect.client.schemas.objects import FlowRun


class Slots:
    """What one worker knows of limits: its own (`at_most` runs at once, None: no limit), and those it met elsewhere."""

    def __init__(self, at_most: int | None) -> None:
        self._at_most = at_most
        self._was_full = False
        self._waiting: dict[UUID | None, list[FlowRun]] = {}
        self.queues_limited = False

    def is_full(self, at_work: int) -> bool:
        """Whether the worker's own limit is reached; remembered until a run ends."""
        if self._at_most is None or at_work < self._at_most:
            return False
        self._was_full = True
        return True

    def wait(self, flow_run: FlowRun) -> None:
        """A run was refused its slot of the deployment's limit: it goes next when one of that deployment ends here."""
        self._waiting.setdefault(flow_run.deployment_id, []).append(flow_run)

    def next_of(self, deployment_id: UUID | None) -> FlowRun | None:
        """A run of that deployment ended: the one that waits for its slot the longest, if one does."""
        waiting = self._waiting.pop(deployment_id, None)
        if not waiting:
            return None
        first, *rest = waiting
        if rest:
            self._waiting[deployment_id] = rest
        return first

    def is_news(self) -> bool:
        """A run ended: whether others may have waited for the worker's own limit, or for that of a queue."""
        was_full, self._was_full = self._was_full, False
        return was_full or self.queues_limited
