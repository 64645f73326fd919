"""Signs of life of this worker's runs, what they missed while no events came, and a look at others': what is dead."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from logging import Logger, LoggerAdapter
from typing import Any
from uuid import UUID

from prefect.client.schemas.objects import FlowRun, StateType
from prefect.events import Event, emit_event

from ..prefect_api.signatures import HEARTBEAT, is_held
from .attempt import Attempt
from .owners import Orphans
from .wake import Ears

_LOOK_EVERY = 5.0  # seconds between two looks for dead workers: no request unless there may be one
_WORKS = (StateType.PENDING, StateType.RUNNING)  # states in which nothing is asked of a run
_BLIND = 10.0  # seconds between two times that is asked what became of the runs here, while no event tells
_AFTERMATH = 10.0  # seconds after a worker's death for the last requests of its processes to have come
_SIGN_EVERY = 20.0  # seconds between two signs of life for a run


def _give_sign(flow_run: FlowRun) -> None:
    """Emit what Prefect's engine would from each run: zombie detection in automations builds on it."""
    related = {"flow": flow_run.flow_id, "deployment": flow_run.deployment_id, "work-pool": flow_run.work_pool_id}
    keys = [*((role, key) for role, key in related.items() if key), *(("tag", tag) for tag in flow_run.tags)]
    emit_event(
        HEARTBEAT,
        resource={"prefect.resource.id": f"prefect.flow-run.{flow_run.id}", "prefect.resource.name": flow_run.name},
        related=[{"prefect.resource.id": f"prefect.{role}.{key}", "prefect.resource.role": role} for role, key in keys],
    )


class Liveness:
    """Gives signs for the runs here, hears those of others."""

    def __init__(self, orphans: Orphans, logger: Logger | LoggerAdapter[Any]) -> None:
        self._orphans = orphans
        self._logger = logger
        self._survey, self._missed = True, False

    def hear(self, run_id: UUID, event: Event) -> None:
        """Something happened to a run that is not here."""
        state = event.resource.get("prefect.state-type"), event.resource.get("prefect.state-name")
        if event.event == HEARTBEAT or is_held(*state):
            self._orphans.sign(run_id)
        else:
            self._orphans.forget(run_id)

    @property
    def others(self) -> bool:
        """Whether other workers hold runs, or may: nothing was heard yet."""
        return self._survey or self._orphans.others

    def notice(self, event: Event, attempt: Attempt | None) -> None:
        """If the event tells of another worker's claim, we are not alone, and an attempt at that run is too late."""
        if self._orphans.is_claim_of_another(event):
            self._orphans.meet()
            if attempt is not None:
                attempt.lost = True

    @property
    def company(self) -> bool:
        """Whether other workers may claim the same runs."""
        return self._survey or self._orphans.company

    def resurvey(self) -> None:
        """Events may have been missed: ask once which runs others hold, and what is asked of those here."""
        self._survey = self._missed = True

    @staticmethod
    async def _catch_up(held: Mapping[UUID, StateType | None], attempts: Mapping[UUID, Attempt]) -> None:
        """Heed what was asked of runs here; `held` are the kinds of states of those that are held."""
        silent = [attempt for run_id, attempt in attempts.items() if held.get(run_id) not in _WORKS]
        await asyncio.gather(*(attempt.catch_up() for attempt in silent))

    async def watch(self, ears: Ears, attempts: Mapping[UUID, Attempt]) -> None:
        """Look and sign until cancelled. Only who hears the others may judge them by their silence."""
        signed_at = asked_at = time.monotonic()
        while True:
            try:
                if await self._orphans.settle_local():
                    asyncio.get_running_loop().call_later(_AFTERMATH, self.resurvey)
                if ears.connected:
                    if self._survey:
                        self._missed = False
                        await self._catch_up(await self._orphans.survey(attempts), attempts)
                        self._survey = self._missed
                    await self._orphans.settle_silent(attempts)
                elif attempts and time.monotonic() - asked_at > _BLIND:
                    asked_at = time.monotonic()
                    await self._catch_up({run.id: run.state_type for run in await self._orphans.held()}, attempts)
            except Exception as error:
                self._logger.warning("Could not settle the runs of a dead worker: %s", error or type(error).__name__)
            if time.monotonic() - signed_at > _SIGN_EVERY:
                signed_at = time.monotonic()
                for attempt in attempts.values():
                    if attempt.claimed:
                        _give_sign(attempt.flow_run)
            await asyncio.sleep(_LOOK_EVERY)
