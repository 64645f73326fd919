"""Proposals of states of which Prefect takes one only, in whatever order they come.

A run's process may be killed while its request for a state is on its way, and that request may come after the worker
told how the run ended. Two workers may claim one run, and the later claim may come after the earlier one's run has
ended; Prefect takes that for the wish to run it again. But a proposal with the transition id of the state that the run
is in is refused: `PreventDuplicateTransitions` in Prefect's `server/orchestration/core_policy.py`. So what must exclude
each other has the same id.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final
from uuid import UUID, uuid5

import httpx
from prefect.client.orchestration import PrefectClient, SyncPrefectClient
from prefect.client.schemas.objects import FlowRun, State, StateType
from prefect.client.schemas.responses import OrchestrationResult
from prefect.exceptions import ObjectNotFound
from prefect.states import to_state_create

_BEGUN = (StateType.RUNNING, StateType.CANCELLING, StateType.PAUSED)
_PATH: Final = "/flow_runs/{id}/set_state"


class Fence:
    """The transition ids of one attempt at a run: of all claims and all ends one, of its beginnings another.

    Its pauses have a third: it may end from there, and Prefect refuses a pause of what has ended.

    What was claimed, given back and is claimed again has the same ids; what has run before, others.
    """

    def __init__(self, run: FlowRun) -> None:
        """Of a run as it was before its claim, or as somebody else has it now, if it has not retried in its process."""
        before = run.run_count - 1 if run.state_type in _BEGUN else run.run_count
        self._run = run.id
        self._claimed_or_ended = uuid5(run.id, f"claim {before}")
        self._begun = uuid5(run.id, f"begin {before}")
        self._paused = uuid5(run.id, f"pause {before}")

    def of(self, kind: StateType) -> UUID:
        """The id with which the run's process proposes a state of that kind, and the worker claims it."""
        own = {StateType.RUNNING: self._begun, StateType.PAUSED: self._paused}
        return own.get(kind, self._claimed_or_ended)

    def after(self, kind: StateType) -> UUID:
        """The id of what the run's process may have asked for when the run is in a state of that kind."""
        return self._begun if kind == StateType.PENDING else self._claimed_or_ended

    async def propose(
        self, client: PrefectClient, state: State[Any], transition: UUID, *, force: bool = False
    ) -> OrchestrationResult[Any]:
        """What the client's `set_flow_run_state` does, under that id. Raises httpx.HTTPError, ObjectNotFound."""
        with _missing():
            response = await client.request("POST", _PATH, **self._request(state, transition, force=force))
        return OrchestrationResult.model_validate(response.json())

    def propose_sync(
        self, client: SyncPrefectClient, state: State[Any], transition: UUID, *, force: bool = False
    ) -> OrchestrationResult[Any]:
        """The same with the other kind of client."""
        with _missing():
            response = client.request("POST", _PATH, **self._request(state, transition, force=force))
        return OrchestrationResult.model_validate(response.json())

    def _request(self, state: State[Any], transition: UUID, *, force: bool) -> dict[str, Any]:
        proposal = to_state_create(state)
        proposal.state_details.flow_run_id = self._run
        proposal.state_details.transition_id = transition
        body = {"state": proposal.model_dump(mode="json", serialize_as_any=True), "force": force}
        return {"path_params": {"id": self._run}, "json": body}


@contextmanager
def _missing() -> Iterator[None]:
    try:
        yield
    except httpx.HTTPStatusError as answer:
        if answer.response.status_code == httpx.codes.NOT_FOUND:
            raise ObjectNotFound(answer) from answer
        raise
