"""The calendar of one process: answers from the projection, keeps it warm, and checks it now and then."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy.exc import SQLAlchemyError

from ..ledger.db import Ledger
from ..ledger.log import read_head
from ..settings import Settings
from .entries import Asked, CalendarEvents
from .parity import Parity
from .plans import Plan
from .projection import Projection

log = logging.getLogger("proactive.calendar")

_LOOK = 0.5  # seconds between two looks for what other processes have written
_PAUSE = 0.2  # that many small changes have to become one
_WARM = timedelta(days=31)


class Calendar:
    """What the gateway and the command show. With the projection switched off every answer is read anew."""

    def __init__(self, ledger: Ledger, settings: Settings) -> None:
        self.projection = Projection(ledger)
        self.parity = Parity()
        self._ledger = ledger
        self._settings = settings
        self._checks: set[asyncio.Task[None]] = set()

    async def events(self, asked: Asked) -> CalendarEvents:
        """That part of the calendar, as of now. Raises InputError as `Asked.days` does."""
        if not self._settings.event_projection_enabled:
            return await Projection(self._ledger).events(asked)
        answer = await self.projection.events(asked)
        if self._settings.calendar_shadow > random.random() and not self._checks:  # noqa: S311 - a sample
            check = asyncio.create_task(self._check(asked, answer))
            self._checks.add(check)
            check.add_done_callback(self._checks.discard)
        return answer

    async def plans(self) -> list[Plan]:
        """Every rule as it is now."""
        await self.projection.refresh()
        return list(self.projection.plans.values())

    async def watch(self) -> None:
        """Keep the projection near the account until cancelled, with the weeks around now ready to be asked for."""
        warm = not self._settings.event_projection_enabled
        while True:
            try:
                if not warm:
                    now = datetime.now(UTC)
                    await self.projection.events(Asked(now - _WARM, now + _WARM))
                    warm = True
                await self.projection.refresh()
                await self._ledger.wait_for_write(_LOOK)
            except Exception as error:  # whatever it is: without this no answer is ready, and nobody would know
                log.warning("calendar.refresh failed: %s", type(error).__name__)
            await asyncio.sleep(_PAUSE)

    def state(self) -> Mapping[str, Any]:
        """How the projection stands, for metrics."""
        return {
            "enabled": self._settings.event_projection_enabled,
            **self.projection.state(),
            "shadow_compared": self.parity.compared,
            "shadow_differences": self.parity.differences,
        }

    async def check(self, asked: Asked, answer: CalendarEvents) -> bool | None:
        """Compare an answer with a recomputation; None where the account has moved on meanwhile."""
        async with self._ledger.read() as session:
            if (await read_head(session)).revision != answer.version:
                return None
            same = await self.parity.compare(session, asked, answer)
            if not same and (await read_head(session)).revision != answer.version:
                self.parity.differences -= 1
                return None
        if not same:
            self.projection.drop()
        return same

    async def _check(self, asked: Asked, answer: CalendarEvents) -> None:
        try:
            await self.check(asked, answer)
        except (SQLAlchemyError, OSError) as error:
            log.warning("calendar.check failed: %s", type(error).__name__)
