"""When the worker looks for runs: pushed by Prefect's events, by timers of its own, and seldom just to be sure.

Prefect tells of a run that was created or resumed, but not of one that its scheduler created, nor of a schedule that
was added. So the instants of scheduled runs are fetched ahead, and a slow look finds what neither told.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections.abc import Awaitable, Callable
from logging import Logger, LoggerAdapter
from typing import Any
from uuid import UUID

from prefect.client.schemas.objects import TERMINAL_STATES, StateType
from prefect.events import Event
from prefect.events.clients import get_events_subscriber
from prefect.events.filters import EventAnyResourceFilter, EventFilter, EventNameFilter

from ..rules.state_names import SKIPPED

# Deployments, queues and the pool itself matter because a change to them can make runs due without a word.
_PREFIXES = ["prefect.flow-run.", "prefect.deployment.", "prefect.work-pool.", "prefect.work-queue."]
_POLLED = {f"prefect.{thing}.{state}" for thing in ("deployment", "work-queue") for state in ("ready", "not-ready")}
LEAD = 1.0  # seconds before its instant that a scheduled run is claimed and put into its process, to wait there
_LEAD_EACH = 0.15  # seconds more for each run that is due with it
_LONGEST_LEAD = 6.0
SLOW_LOOK = 150.0  # seconds between two far looks while events arrive
# Seconds after a change of a deployment at which Prefect's scheduler may have made its runs, which no event tells.
_AFTER_CHANGE = (8.0, 65.0)
# Seconds between looks for what an event told of and that is not there: Prefect tells before it commits.
UNCOMMITTED = (0.1, 1.0)
_RECONNECT = (0.2, 0.5, 1.0, 2.0, 5.0)  # seconds between attempts; the last one stays


_FREES = {kind.value for kind in (*TERMINAL_STATES, StateType.PAUSED)}  # states that hold no slot


def freed_by(event: Event) -> UUID | None:
    """The deployment whose run ended, or was suspended, so that others may go; None if the event tells of no such."""
    deployment = event.resource_in_role.get("deployment")
    if deployment is None or event.resource.get("prefect.state-type") not in _FREES:
        return None
    return UUID(deployment.id.removeprefix("prefect.deployment."))


def asks_to_stop(kind: str | None, name: str | None) -> bool:
    """Whether a state of that kind and name cancels a run. One that its own gate skips ends by itself, and told why."""
    return kind == StateType.CANCELLING or (kind == StateType.CANCELLED and name != SKIPPED)


def is_only_polled(event: Event) -> bool:
    """Whether a deployment or a queue was polled again, or not for a while. Our own looks do that; it is no change."""
    return event.event in _POLLED


class Ears:
    """The worker's one subscription to the events of its work pool; it reconnects for as long as it lives."""

    def __init__(
        self,
        *,
        heard: Callable[[Event], None],
        reconnected: Callable[[], None],
        logger: Logger | LoggerAdapter[Any],
    ) -> None:
        self._heard = heard
        self._reconnected = reconnected
        self._logger = logger
        self._told = False
        self.connected = False

    async def follow(self, pool: Callable[[], UUID | None]) -> None:
        """Hear the events of the pool of that id until cancelled; it may not be known yet, or be made anew."""
        while True:
            known = pool()
            listening = None if known is None else asyncio.create_task(self._listen(known))
            try:
                while pool() == known:  # noqa: ASYNC110 - Prefect's own code makes it known, and says nothing
                    await asyncio.sleep(1)
            finally:
                if listening is not None:
                    listening.cancel()

    async def _listen(self, pool_id: UUID) -> None:
        attempt = 0
        while True:
            events = EventFilter(
                event=EventNameFilter(prefix=_PREFIXES),
                any_resource=EventAnyResourceFilter(id=[f"prefect.work-pool.{pool_id}"]),
            )
            try:
                async with get_events_subscriber(filter=events, reconnection_attempts=0) as subscriber:
                    self.connected, self._told, attempt = True, False, 0
                    self._reconnected()
                    async for event in subscriber:
                        self._heard(event)
            except Exception as error:  # whatever it is, the answer is to connect again
                if not self._told:
                    self._logger.info("There is no event stream (%s); connecting again", error or type(error).__name__)
                self._told = True
            finally:
                self.connected = False
            await asyncio.sleep(_RECONNECT[min(attempt, len(_RECONNECT) - 1)])
            attempt += 1


class Alarm:
    """Wakes one waiter: at once when rung, else at the earliest instant that was set."""

    def __init__(self) -> None:
        self._rung = asyncio.Event()
        self._instants: dict[UUID, float] = {}

    def ring(self) -> None:
        """Wake the waiter now."""
        self._rung.set()

    def set(self, key: UUID, instant: float) -> None:
        """Wake the waiter at `instant` (seconds since the epoch); a later call for the same key replaces it."""
        self._instants[key] = instant
        self._rung.set()

    def unset(self, key: UUID) -> None:
        """Forget the instant of `key`."""
        self._instants.pop(key, None)

    def replace(self, instants: dict[UUID, float]) -> None:
        """Set these instants and forget all others."""
        self._instants = dict(instants)

    def renew(self, before: float, instants: dict[UUID, float]) -> None:
        """Set these instants, and forget others up to `before`: what was due by then has been looked for."""
        self._instants = {key: instant for key, instant in self._instants.items() if instant > before} | instants

    def has(self, until: float) -> bool:
        """Whether an instant up to `until` was set."""
        return min(self._instants.values(), default=math.inf) <= until

    def lead(self) -> float:
        """Seconds ahead of the earliest instant at which to begin: the longer, the more is due with it."""
        earliest = min(self._instants.values(), default=0.0)
        together = sum(each <= earliest + LEAD for each in self._instants.values())
        return min(LEAD + _LEAD_EACH * together, _LONGEST_LEAD)

    async def wait(self, *, until: float) -> None:
        """Return when rung, the lead before the earliest instant, or at `until`, whichever comes first."""
        while not self._rung.is_set():
            instant = min(min(self._instants.values(), default=math.inf) - self.lead(), until)
            left = instant - time.time()
            if left <= 0:
                break
            with contextlib.suppress(TimeoutError):
                # At most a minute at a time: a machine that slept, or a clock that was set, is noticed.
                await asyncio.wait_for(self._rung.wait(), min(left, 60.0))
        self._rung.clear()


class FarLooks:
    """When to look far ahead: now and then, at once after a change or a gap, and when the scheduler followed it."""

    def __init__(self) -> None:
        self._slow = 0.0
        self._at: list[float] = []
        self._now = True

    def now(self) -> None:
        """Something may have been missed: look at once."""
        self._now = True

    def at(self, instant: float) -> None:
        """Look at that instant (epoch seconds), too."""
        self._at.append(instant)

    def after_change(self) -> None:
        """A deployment, a queue or the pool changed: look now, and when the scheduler may have made runs for it."""
        now = time.time()
        self._at = [now + after for after in _AFTER_CHANGE]
        self._now = True

    def take(self) -> bool:
        """Whether a far look is due now."""
        due = time.time() >= self.next()
        self._now = False
        return due

    def done(self, began: float) -> None:
        """A far look that began then has succeeded."""
        self._at = [each for each in self._at if each > began]
        self._slow = began + SLOW_LOOK

    def next(self) -> float:
        """The instant of the next one, as far as is known."""
        return 0.0 if self._now else min([self._slow, *self._at])


class Together:
    """One call at a time of something that costs the same for many callers: who comes while it runs shares the next."""

    def __init__(self, call: Callable[[Any], Awaitable[Any]]) -> None:
        self._call = call
        self._running: dict[Any, asyncio.Task[Any]] = {}
        self._next: dict[Any, asyncio.Task[Any]] = {}

    async def __call__(self, key: Any) -> Any:
        """The answer of a call for `key` that began after this was asked."""
        if key in self._next:
            return await asyncio.shield(self._next[key])
        if key not in self._running:
            return await asyncio.shield(self._begin(key))
        self._next[key] = asyncio.create_task(self._after(self._running[key], key))
        return await asyncio.shield(self._next[key])

    def _begin(self, key: Any) -> asyncio.Task[Any]:
        async def call() -> Any:
            try:
                return await self._call(key)
            finally:
                del self._running[key]

        task = self._running[key] = asyncio.create_task(call())
        return task

    async def _after(self, former: asyncio.Task[Any], key: Any) -> Any:
        await asyncio.wait([former])
        del self._next[key]
        return await self._begin(key)
