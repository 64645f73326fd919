"""What a run's clients answer, or leave, without a request: the worker knows it, or tells it when it has time.

Each of these requests would be made by every run, before its flow's first line.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any
from uuid import UUID

import httpx
from prefect.client.orchestration import PrefectClient, SyncPrefectClient
from prefect.client.schemas.objects import FlowRun, ServerDefaultResultStorage, State, StateType
from prefect.client.schemas.responses import DeploymentResponse

from ..prefect_api.fence import Fence
from . import wire
from .voice import Voice

_NO_CONTENT = 204
_AT_ONCE = 6  # processes that ask for Running at one time: the embedded database answers no faster to more


class Places:
    """Places for the processes of one forkserver: runs that are due together do not all ask the server at once.

    A place is a lock on one byte of a file, which the kernel frees with the process, however that ends.
    """

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile()  # noqa: SIM115 - open for as long as the processes live

    @contextmanager
    def one(self) -> Iterator[None]:
        """Wait for a place, and have it for as long as this lasts."""
        place = os.getpid() % _AT_ONCE
        fcntl.lockf(self._file, fcntl.LOCK_EX, 1, place)
        try:
            yield
        finally:
            fcntl.lockf(self._file, fcntl.LOCK_UN, 1, place)


class Known:
    """One run's knowledge, given to both of its clients."""

    def __init__(
        self, flow_run: FlowRun, deployment: DeploymentResponse, order: wire.Message, voice: Voice, places: Places
    ) -> None:
        self._run = flow_run
        self._fence = Fence(flow_run)
        self._deployment = deployment
        self._storage = ServerDefaultResultStorage.model_validate(order["storage"])
        self._start_at: float = order["start_at"]
        self._claim: str = order["claim"]
        self._owner: str = order["owner"]
        self._voice = voice
        self._places = places

    def inform(self, client: PrefectClient | SyncPrefectClient) -> None:
        """Have `client` ask the server only for what is not known."""
        is_async = isinstance(client, PrefectClient)
        own: Any = client  # methods are put in the place of its own
        self._update(own, is_async)
        self._first_reading(own, is_async)
        if is_async:
            self._set_state(own)
            self._read_deployment(own)
            own.read_server_default_result_storage = lambda: _soon(self._storage)
        else:
            self._set_state_sync(own)
            own.read_server_default_result_storage = lambda: self._storage

    def _read_deployment(self, client: Any) -> None:
        ask = client.read_deployment

        async def read(deployment_id: UUID | str) -> DeploymentResponse:
            if str(deployment_id) == str(self._deployment.id):
                return self._deployment
            answer: DeploymentResponse = await ask(deployment_id)
            return answer

        client.read_deployment = read

    def _update(self, client: Any, is_async: bool) -> None:
        """The engine first tells its flow's version: the worker will, later. That it retries must be told at once."""
        ask = client.update_flow_run

        def update(flow_run_id: UUID, **changes: Any) -> Any:
            if flow_run_id != self._run.id:
                return ask(flow_run_id=flow_run_id, **changes)
            policy = changes.get("empirical_policy")
            if changes.keys() <= {"flow_version", "empirical_policy"} and not (policy and policy.retries):
                self._voice.say(later={"flow_version": changes.get("flow_version"), "infrastructure_pid": self._owner})
                answer = httpx.Response(_NO_CONTENT)
                return _soon(answer) if is_async else answer
            changes.setdefault("infrastructure_pid", self._owner)
            return ask(flow_run_id=flow_run_id, **changes)

        client.update_flow_run = update

    def _set_state(self, client: Any) -> None:
        ask = client.set_flow_run_state

        async def set_state(flow_run_id: UUID, state: State[Any], *args: Any, **options: Any) -> Any:
            if flow_run_id != self._run.id:
                return await ask(flow_run_id, state, *args, **options)
            await asyncio.sleep(self._early(state))
            with self._turn(state):
                return await self._fence.propose(client, state, self._fence.of(state.type), *args, **options)

        client.set_flow_run_state = set_state

    def _set_state_sync(self, client: Any) -> None:
        ask = client.set_flow_run_state

        def set_state(flow_run_id: UUID, state: State[Any], *args: Any, **options: Any) -> Any:
            if flow_run_id != self._run.id:
                return ask(flow_run_id, state, *args, **options)
            time.sleep(self._early(state))
            with self._turn(state):
                return self._fence.propose_sync(client, state, self._fence.of(state.type), *args, **options)

        client.set_flow_run_state = set_state

    def _early(self, state: State[Any]) -> float:
        """Seconds until the run may begin; everything up to this request was done ahead."""
        return max(0.0, self._start_at - time.time()) if state.type == StateType.RUNNING else 0.0

    @contextmanager
    def _turn(self, state: State[Any]) -> Iterator[None]:
        """Tell the worker what is asked for, and sign a Running state: any other worker knows by it whose run it is."""
        begins = state.type == StateType.RUNNING
        if begins and not state.message:
            state.message = self._claim
        with self._places.one() if begins else nullcontext():
            self._voice.say(asks=state.type.value)
            yield

    def _first_reading(self, client: Any, is_async: bool) -> None:
        """The engine reads its run right after it set it Running, and keeps the server's answer to that on this object.

        Every later reading asks the server.
        """
        ask = client.read_flow_run

        def read(flow_run_id: UUID) -> Any:
            if flow_run_id != self._run.id or self._run.state is None or not self._run.state.is_running():
                return ask(flow_run_id)
            client.read_flow_run = ask
            self._voice.say(running=True)
            return _soon(self._run) if is_async else self._run

        client.read_flow_run = read


async def _soon(value: Any) -> Any:
    return value
