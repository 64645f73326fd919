"""An owner's share of the pool: how many runs of rules of one owner all its workers together have at once.

Prefect has no limit of that kind, so it is kept by who claims: look, claim, look again. Of two workers that claim at
the same time, the one whose claim came second sees both, and gives its own back.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime

from prefect.client.schemas.objects import FlowRun, StateType

from .slots import rule_owner
from .states import Claim, States

_AGAIN = 5.0  # seconds until a run that found no room is tried again, if no end of another is heard of before


def _order(run: FlowRun) -> tuple[bool, datetime, str]:
    """Who comes first: a run that has begun, then claims by their time."""
    since = run.state.timestamp if run.state else datetime.now(UTC)
    return run.state_type == StateType.PENDING, since, str(run.id)


class Shares:
    """Claims runs within the limit; `held` reads all runs of the pool that some worker has."""

    def __init__(self, of_an_owner: int | None, states: States, held: Callable[[], Awaitable[list[FlowRun]]]) -> None:
        self._of_an_owner = of_an_owner
        self._states = states
        self._held = held

    async def claim(self, flow_run: FlowRun, *, contested: bool) -> Claim:
        """Claim the run unless its owner has as many as may be. Without a limit, or an owner, nothing more is asked."""
        if not await self._is_room_for(flow_run):
            return Claim(won=False, again=time.time() + _AGAIN)
        claim = await self._states.claim(flow_run, contested=contested)
        if claim.won and not await self._is_room_for(flow_run):
            await self._states.put_off(flow_run.id, _AGAIN, "Given back: its owner has as many runs as may be at once.")
            return Claim(won=False, again=time.time() + _AGAIN)
        return claim

    async def _is_room_for(self, flow_run: FlowRun) -> bool:
        owner = rule_owner(flow_run)
        if self._of_an_owner is None or owner is None:
            return True
        held = {run.id: run for run in await self._held() if rule_owner(run) == owner}
        mine = held.pop(flow_run.id, None)
        before = [run for run in held.values() if mine is None or _order(run) < _order(mine)]
        return len(before) < self._of_an_owner
