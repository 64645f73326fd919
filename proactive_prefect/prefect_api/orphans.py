"""Ends the runs of workers that are gone without a sign, where no other worker of their pool is left to do it.

A worker of type proactive signs the runs that it claims. Twice a minute it tells Prefect that it lives, and three times
that each of its runs does. What it held when its machine died would stay Running for ever: the other workers of its
pool see to that by what they hear; this, for the gateway, by asking.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

from prefect.client.schemas.objects import FlowRun, Worker
from prefect.states import Cancelled, Crashed

from .client import PrefectApi, Refused
from .runs import read_run, run_states, set_state
from .signatures import HEARTBEAT, HELD, SILENCE, Owner, owner_in, owner_of

log = logging.getLogger("proactive.missed")

_PAGE = 200
_TOUCH = 20.0  # seconds that may lie between two looks that count as one watch


class Watch:
    """Looks at the runs that workers hold. `silence`: seconds after which a worker without a sign is dead."""

    def __init__(self, api: PrefectApi, silence: float = SILENCE) -> None:
        self._api = api
        self._silence = silence
        self._since = self._last = float("-inf")

    async def look(self) -> list[str]:
        """End what dead workers held; the ids of those runs. Raises PrefectError.

        Only who has had the server before them for as long as a worker may be silent can tell: after the server was
        away, no worker has given a sign.
        """
        now = time.monotonic()
        if now - self._last > _TOUCH:
            self._since = now
        old = [run for run in await _claimed_runs(self._api) if self._is_old(run)]
        self._last = time.monotonic()
        if not old or now - self._since < self._silence:
            return []
        ended = []
        for pool in {run.work_pool_name for run in old if run.work_pool_name}:
            alive = {worker.name for worker in await self._workers(pool) if self._lives(worker)}
            for run in old:
                if run.work_pool_name != pool or (owner := await self._owner(run)) is None or owner.worker in alive:
                    continue
                if not await self._gave_sign(run):  # both are silent: one message may be lost on a busy machine
                    ended += await self._end(run, owner)
        return ended

    def _is_old(self, run: FlowRun) -> bool:
        return run.state is not None and datetime.now(UTC) - run.state.timestamp > timedelta(seconds=self._silence)

    async def _workers(self, pool: str) -> Iterable[Worker]:
        return [Worker.model_validate(each) for each in await self._api.post(f"/work_pools/{pool}/workers/filter", {})]

    def _lives(self, worker: Worker) -> bool:
        last, every = worker.last_heartbeat_time, worker.heartbeat_interval_seconds or 0
        return last is not None and datetime.now(UTC) - last < timedelta(seconds=max(self._silence, 1.5 * every))

    async def _gave_sign(self, run: FlowRun) -> bool:
        wanted = {
            "occurred": {"since": (datetime.now(UTC) - timedelta(seconds=self._silence)).isoformat()},
            "event": {"name": [HEARTBEAT]},
            "resource": {"id": [f"prefect.flow-run.{run.id}"]},
        }
        return bool((await self._api.post("/events/filter", {"filter": wanted, "limit": 1}))["events"])

    async def _owner(self, run: FlowRun) -> Owner | None:
        if (owner := owner_of(run)) is not None or run.state is None or not run.state.is_cancelling():
            return owner
        return owner_in(await run_states(self._api, run.id))

    async def _end(self, run: FlowRun, owner: Owner) -> list[str]:
        try:
            state = (await read_run(self._api, run.id)).state
        except Refused as refused:
            if refused.status == 404:
                return []
            raise
        if state is None or run.state is None or state.id != run.state.id:  # it went on meanwhile
            return []
        why = f"Worker '{owner.worker}' on {owner.host} has given no sign of life for {self._silence:g} s."
        await set_state(self._api, run.id, (Cancelled if state.is_cancelling() else Crashed)(message=why))
        log.warning("missed.orphaned run=%s worker=%s host=%s", run.id, owner.worker, owner.host)
        return [str(run.id)]


async def _claimed_runs(api: PrefectApi) -> list[FlowRun]:
    """All runs that a worker of type proactive has claimed and not ended."""
    found: list[FlowRun] = []
    while True:
        page = await api.post(
            "/flow_runs/filter",
            {
                "work_pools": {"type": {"any_": ["proactive"]}},
                "flow_runs": {"state": HELD},
                "sort": "EXPECTED_START_TIME_ASC",
                "limit": _PAGE,
                "offset": len(found),
            },
        )
        found += map(FlowRun.model_validate, page)
        if len(page) < _PAGE:
            return found
