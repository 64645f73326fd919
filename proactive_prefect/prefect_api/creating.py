"""Flow runs are created: one, many in a call, or one together with those that are asked for at the same time.

All calls bear being made twice, since each run has an idempotency key. A transaction of Prefect's that creates runs
has to find a gap between the writes of others (see `client.gap`); one that is found serves all who wait.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal
from uuid import UUID

from prefect.client.schemas.objects import FlowRun, State
from prefect.states import to_state_create

from ..tracing import trace_labels
from .client import Busy, PrefectApi, Refused, gap

# On a run's labels: why it was made, for the gate. Scheduled runs have none, and need none.
CAUSE_LABEL = "proactive.cause"
# Which delivery's payload the run has to fetch from the inbox, where it is too large to come along.
PAYLOAD_LABEL = "proactive.payload"

_BULK = 100  # runs in one call: Prefect's own limit
_BULK_BYTES = 1024 * 1024


@dataclass(frozen=True)
class NewRun:
    """A run that is to be created, and what stands beside its deployment's own parameters and tags.

    `payload` is text, and stays text. `state` defaults to Scheduled for now, `name` to one of Prefect's.
    """

    idempotency_key: str
    name: str | None = None
    parameters: Mapping[str, Any] | None = None
    payload: str | None = None
    tags: Iterable[str] = ()
    state: State[Any] | None = None
    cause: Literal["manual", "webhook", "schedule"] = "manual"
    labels: Mapping[str, str] | None = None

    def body(self) -> dict[str, Any]:
        """What Prefect is sent."""
        body: dict[str, Any] = {
            "idempotency_key": self.idempotency_key,
            "tags": list(self.tags),
            "labels": {**(self.labels or {}), CAUSE_LABEL: self.cause},
        }
        if self.parameters is not None or self.payload is not None:
            payload = {} if self.payload is None else {"payload": self.payload}
            body["parameters"] = {**(self.parameters or {}), **payload}
        if self.name is not None:
            body["name"] = self.name
        if self.state is not None:
            body["state"] = to_state_create(self.state).model_dump(mode="json", exclude_unset=True)
        return body


async def make_run(api: PrefectApi, deployment_id: UUID | str, run: NewRun) -> FlowRun:
    """Create a run of a deployment; with the key of an earlier one, that one is returned. Raises as `create_run`."""
    return FlowRun.model_validate(await api.post(f"/deployments/{deployment_id}/create_flow_run", run.body()))


async def create_run(
    api: PrefectApi,
    deployment_id: UUID | str,
    *,
    idempotency_key: str,
    parameters: Mapping[str, Any] | None = None,
    payload: str | None = None,
    tags: Iterable[str] = (),
    name: str | None = None,
    state: State[Any] | None = None,
    cause: Literal["manual", "webhook", "schedule"] = "manual",
    labels: Mapping[str, str] | None = None,
) -> FlowRun:
    """Create a run of a deployment; with the key of an earlier one, that one is returned.

    `parameters` stand beside the deployment's own. `payload` is text, and stays text. `state` defaults to Scheduled
    for now. The run carries the current trace. Those that are asked for at once are created together: a burst costs
    Prefect few transactions. Raises Refused, PrefectUnreachable.
    """
    carried = {**(labels or {}), **trace_labels()}
    run = NewRun(idempotency_key, name, parameters, payload, tags, state, cause, carried)
    if (group := api.groups.get(str(deployment_id))) is None:
        group = api.groups[str(deployment_id)] = Together(api, deployment_id)
    made: FlowRun = await group.create(run)
    return made


async def create_runs(api: PrefectApi, deployment_id: UUID | str, runs: Sequence[NewRun]) -> list[str | None]:
    """Create runs of a deployment, many in a call; the id of each, in order; with the key of an earlier one, its id.

    None for a run that Prefect did not take, which says little about why: `make_run` tells. Raises Refused
    (Busy where its database was locked), PrefectUnreachable; then any of them may have been created.
    """
    path = f"/deployments/{deployment_id}/create_flow_run/bulk"
    ids: list[str | None] = []
    for bodies in _portions([run.body() for run in runs]):
        results = (await api.post(path, bodies))["results"]
        # Its database was locked, say: no fault of the run's. Prefect answers with success all the same.
        if any("sqlalche" in (one.get("error") or "") for one in results):
            raise Busy(503, "its database is busy", f"POST {path}")
        ids += [one["flow_run_id"] if one["status"] == "CREATED" else None for one in results]
    return ids


def _portions(bodies: Sequence[dict[str, Any]]) -> Iterable[list[dict[str, Any]]]:
    portion: list[dict[str, Any]] = []
    size = 0
    for body in bodies:
        more = len(json.dumps(body))
        if portion and (len(portion) == _BULK or size + more > _BULK_BYTES):
            yield portion
            portion, size = [], 0
        portion.append(body)
        size += more
    if portion:
        yield portion


@dataclass
class _Asked:
    run: NewRun
    made: asyncio.Future[FlowRun]


class Together:
    """The runs of one deployment that are asked for through one connection."""

    def __init__(self, api: PrefectApi, deployment_id: UUID | str) -> None:
        self._api = api
        self._deployment_id = deployment_id
        self._asked: deque[_Asked] = deque()
        self._work: asyncio.Task[None] | None = None

    async def create(self, run: NewRun) -> FlowRun:
        """Create the run, alone or with those that come while others are being created. Raises as `make_run`."""
        asked = _Asked(run, asyncio.get_running_loop().create_future())
        self._asked.append(asked)
        if self._work is None:
            self._work = asyncio.create_task(self._create_all())
        return await asked.made

    async def _create_all(self) -> None:
        try:
            while self._asked:
                some = [self._asked.popleft() for _ in range(min(_BULK, len(self._asked)))]
                # Who was cancelled wants none any more.
                await self._create([one for one in some if not one.made.done()])
        finally:
            self._work = None

    async def _create(self, some: Sequence[_Asked]) -> None:
        found: dict[str, FlowRun] = {}
        if len(some) > 1:
            try:
                found = await self._in_one_call([one.run for one in some])
            except Refused:
                pass  # one of them may be the reason: each is told its own
            except Exception as error:  # whatever it is, nobody is left waiting
                for one in some:
                    _tell(one, error)
                return
        for one in some:
            try:
                made = found.get(one.run.idempotency_key) or await make_run(self._api, self._deployment_id, one.run)
            except Exception as error:
                _tell(one, error)
            else:
                if not one.made.done():
                    one.made.set_result(made)

    async def _in_one_call(self, runs: Sequence[NewRun]) -> dict[str, FlowRun]:
        """Those that Prefect took, by idempotency key. Raises Refused, PrefectUnreachable."""
        began, tries = time.monotonic(), 1
        while True:
            try:
                ids = [one for one in await create_runs(self._api, self._deployment_id, runs) if one is not None]
                break
            except Busy:
                if time.monotonic() - began > self._api.longest:
                    raise
                await asyncio.sleep(gap(tries))
                tries += 1
        page = {"flow_runs": {"id": {"any_": ids}}, "limit": len(ids)}
        made = [FlowRun.model_validate(one) for one in await self._api.post("/flow_runs/filter", page)] if ids else []
        return {run.idempotency_key: run for run in made if run.idempotency_key is not None}


def _tell(one: _Asked, error: Exception) -> None:
    if not one.made.done():
        one.made.set_exception(error)
