"""What the worker tells Prefect about a run: claimed, given back, crashed, cancelled, timed out; each exactly once."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from logging import Logger, LoggerAdapter
from typing import Any
from uuid import UUID, uuid4

import httpx
from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.objects import FlowRun, State, StateType
from prefect.client.schemas.responses import SetStateStatus
from prefect.exceptions import ObjectNotFound
from prefect.states import Cancelled, Crashed, Failed, Pending, Scheduled
from tenacity import AsyncRetrying, TryAgain, retry_if_exception, wait_random_exponential

from ..errors import PrefectError
from ..prefect_api.fence import Fence
from ..prefect_api.signatures import is_held
from ..rules.state_names import TIMED_OUT
from .retries import leave_to_workers

_REST = 0.5  # seconds between two looks whether there is time for what can wait
ON_THE_WAY = 1.0  # seconds that a request of a process that was killed may still be on its way


def is_passing(error: BaseException) -> bool:
    """Whether the same may succeed later: no answer, an answer that the server is not able to, no process to be had."""
    if isinstance(error, PrefectError | ChildProcessError):
        return True
    if isinstance(error, httpx.HTTPStatusError):
        return error.response.status_code >= 500 or error.response.status_code in (408, 429)
    return isinstance(error, httpx.TransportError)


def _until_answered() -> AsyncRetrying:
    """Attempts until the server gives an answer, whatever that is."""
    wait = wait_random_exponential(multiplier=0.5, max=30)
    return AsyncRetrying(retry=retry_if_exception(is_passing), wait=wait, reraise=True)


@dataclass(frozen=True)
class Claim:
    """The answer to a claim: `won`, or else `again` is the instant (epoch seconds) to try again, if there is one."""

    won: bool
    again: float | None = None


def name_of_end(status: int) -> str:
    """A process's exit status in words; the signal by its name."""
    if status >= 0:
        return f"ended by itself with exit status {status}"
    try:
        name = signal.Signals(-status).name
    except ValueError:
        name = f"signal {-status}"
    hint = {
        "SIGKILL": " (killed from outside; often the machine ran out of memory)",
        "SIGSEGV": " (a segmentation fault in native code)",
        "SIGABRT": " (aborted itself, usually in native code)",
    }.get(name, "")
    return f"was killed by {name}{hint}"


class States:
    """State changes of runs, as one worker process proposes them. Claims carry `signed`, which is no other's."""

    def __init__(self, client: PrefectClient, *, signed: str, logger: Logger | LoggerAdapter[Any]) -> None:
        self._client = client
        self._signed = signed
        self._logger = logger
        self._rest: dict[UUID, dict[str, Any]] = {}

    async def current(self, run_id: UUID) -> State[Any] | None:
        """The state that a run is in now; None if it was deleted."""
        try:
            return (await self._client.read_flow_run(run_id)).state
        except ObjectNotFound:
            return None

    async def learn(self, run_id: UUID) -> State[Any] | None:
        """The state that a run is in now, asked for until there is an answer; None if it was deleted."""
        async for attempt in _until_answered():
            with attempt:
                return await self.current(run_id)
        raise AssertionError("unreachable: it is tried until it returns")

    async def claim(self, flow_run: FlowRun, *, contested: bool = False) -> Claim:
        """Propose Pending: the one atomic step that decides which worker runs it. A lost claim is no error.

        `contested`: other workers may claim it too. Prefect takes a claim of a run that has ended meanwhile for the
        wish to run it again; so a claim in whose time another worker ran the run from beginning to end is undone.
        """
        if contested and not await self._is_free(flow_run.id):
            return Claim(won=False)
        claim = await self._propose(flow_run)
        if claim.won and contested and await self.undo_late_claim(flow_run):
            return Claim(won=False)
        return claim

    async def _is_free(self, flow_run_id: UUID) -> bool:
        state = await self.current(flow_run_id)
        return state is not None and state.is_scheduled()

    async def undo_late_claim(self, flow_run: FlowRun) -> bool:
        """Whether the run, which is claimed, had ended since it was last to be claimed; then it is again what it was.

        A fence refuses such a claim, but for the end of a run that had not begun, or that another's successor told.
        """
        history = await self._client.read_flow_run_states(flow_run.id)
        told = max((state.timestamp for state in history if state.is_scheduled()), default=None)
        ends = [state for state in history if state.is_final() and told is not None and state.timestamp > told]
        if ends:
            self._logger.info("Run %s was run by another worker meanwhile", flow_run.id)
            end, fence = ends[-1].model_copy(update={"id": uuid4()}), Fence(flow_run)
            kept = end.state_details.transition_id  # by it is refused what is still on its way
            await fence.propose(self._client, end, kept or fence.of(end.type), force=True)
        return bool(ends)

    async def _propose(self, flow_run: FlowRun) -> Claim:
        pending: State[Any] = Pending(message=self._signed)
        # When to begin, the run's process knows. By the server's clock it might wait for another second; and a run that
        # was put off, and goes now since a slot is free, would wait for its next try all the same.
        pending.state_details.scheduled_time = flow_run.created
        fence = Fence(flow_run)
        answer = await fence.propose(self._client, pending, fence.of(pending.type))
        match answer.status:
            case SetStateStatus.ACCEPT:
                return Claim(won=True)
            case SetStateStatus.REJECT:
                # A concurrency limit: the server has put it off, or cancelled it. Or there was a claim, or an end.
                state = answer.state
                if state is not None and self._is_mine(state):
                    return Claim(won=True)  # by a request whose answer was lost and that the client sent again
                if state is not None and state.is_scheduled() and state.state_details.scheduled_time is not None:
                    return Claim(won=False, again=state.state_details.scheduled_time.timestamp())
                return Claim(won=False)
            case SetStateStatus.WAIT:
                return Claim(won=False, again=time.time() + getattr(answer.details, "delay_seconds", 5))
            case SetStateStatus.ABORT:
                # Lost to another worker, or cancelled; unless an earlier claim of ours, without an answer, was won.
                return Claim(won=await self.is_ours(flow_run.id))
        return Claim(won=False)

    def tell_later(self, flow_run_id: UUID, changes: dict[str, Any]) -> None:
        """Tell these facts about a run, on which nothing depends, when there is time."""
        self._rest[flow_run_id] = changes

    async def tell_rest(self, busy: Callable[[], bool]) -> None:
        """Tell what was left for later, until there is no more, or something else is to be done."""
        while self._rest and not busy():
            run_id, changes = self._rest.popitem()
            with contextlib.suppress(httpx.HTTPError, ObjectNotFound):
                await self._client.update_flow_run(run_id, **changes)

    async def keep_telling(self, busy: Callable[[], bool]) -> None:
        """Tell what was left for later whenever there is time, until cancelled."""
        while True:
            await asyncio.sleep(_REST)
            await self.tell_rest(busy)

    async def is_ours(self, flow_run_id: UUID) -> bool:
        """Whether the run is Pending by this very process."""
        state = await self.current(flow_run_id)
        return state is not None and self._is_mine(state)

    def _is_mine(self, state: State[Any]) -> bool:
        return state.type == StateType.PENDING and state.message == self._signed

    async def settle(
        self,
        flow_run_id: UUID,
        state: State[Any],
        *,
        only_from: StateType | None = None,
        signed: str | None = None,
        fence: Fence | None = None,
    ) -> bool:
        """Bring a run that nobody works on any more to `state`, unless it is no process's now; keeps trying.

        One that is to be cancelled becomes Cancelled, since Prefect lets it become nothing else. `only_from`: and is in
        a state of that type. `signed`: only while that is what its state says. `fence`: of its process, whose last
        request may still be on its way; either that is taken or this. Gives whether this call brought it to `state`.
        """
        async for attempt in _until_answered():
            with attempt:
                try:
                    now = (await self._client.read_flow_run(flow_run_id)).state
                    if now is None or not is_held(now.type, now.name) or only_from not in (None, now.type):
                        return False
                    if signed not in (None, now.message):
                        return False
                    end = Cancelled(message=state.message) if now.is_cancelling() else state
                    if fence is None:
                        answer = await self._client.set_flow_run_state(flow_run_id, end)
                    else:
                        answer = await fence.propose(self._client, end, fence.after(now.type))
                except ObjectNotFound:
                    return False  # deleted meanwhile
                if fence is not None and answer.status == SetStateStatus.REJECT:
                    fence = None  # its request came before: there is none on its way
                    raise TryAgain
                if answer.status != SetStateStatus.ACCEPT:
                    self._logger.debug("%s was not accepted for %s: %s", state.name, flow_run_id, answer.details)
                return answer.status == SetStateStatus.ACCEPT and end.type == state.type
        raise AssertionError("unreachable: it is tried until it returns")

    async def crashed(self, flow_run_id: UUID, why: str, fence: Fence | None = None) -> bool:
        """The run's process is gone without having told how it ended."""
        return await self.settle(flow_run_id, Crashed(message=why), fence=fence)

    async def cancelled(self, flow_run_id: UUID, why: str, fence: Fence | None = None) -> None:
        """The run was cancelled and its process is gone."""
        await self.settle(flow_run_id, Cancelled(message=why), fence=fence)

    async def timed_out(self, flow_run_id: UUID, why: str, fence: Fence | None = None) -> None:
        """The run was killed at its time limit."""
        await self.settle(flow_run_id, Failed(name=TIMED_OUT, message=why), fence=fence)

    async def give_back(self, flow_run: FlowRun, why: str, fence: Fence | None = None) -> bool:
        """A claimed run whose flow never began goes back to be claimed anew, at the instant it was for.

        Gives whether it did.
        """
        at = flow_run.next_scheduled_start_time or flow_run.expected_start_time
        back: State[Any] = Scheduled(scheduled_time=at, message=why)
        return await self.settle(flow_run.id, back, only_from=StateType.PENDING, fence=fence)

    async def leave_to_workers(self, flow_run_id: UUID) -> None:
        """If the run, whose process is gone, waits for a retry of its flow, any worker may begin that."""
        async for attempt in _until_answered():
            with attempt, contextlib.suppress(ObjectNotFound):
                await leave_to_workers(self._client, await self._client.read_flow_run(flow_run_id))

    async def put_off(self, flow_run_id: UUID, seconds: float, why: str) -> bool:
        """A run that this worker has claimed, or may have since no answer came, is to be claimed anew after `seconds`.

        Gives whether it was claimed.
        """
        later: State[Any] = Scheduled(scheduled_time=datetime.now(UTC) + timedelta(seconds=seconds), message=why)
        return await self.settle(flow_run_id, later, only_from=StateType.PENDING, signed=self._signed)

    async def arrived(self, flow_run_id: UUID, kind: str) -> None:
        """Return when the run is in a state of `kind`, or has ended, or when that request must be lost.

        For a run whose process died before it had the answer: what is told now, the request would undo.
        """
        deadline = time.monotonic() + ON_THE_WAY
        while time.monotonic() < deadline:
            try:
                state = await self.current(flow_run_id)
            except httpx.HTTPError:
                return
            if state is None or state.type == kind or state.is_final():
                return
            await asyncio.sleep(0.1)
