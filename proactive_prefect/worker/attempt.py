"""One run on this worker, from its claim until its process is gone and its state is told."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import tempfile
import time
from pathlib import Path
from typing import Any

from prefect.client.schemas.objects import FlowRun, State
from prefect.events import Event
from prefect.states import Cancelling, Crashed, Suspended

from ..prefect_api.fence import Fence
from ..prefect_api.signatures import Owner
from .generation import Spare
from .job import ProactiveJobConfiguration, ProactiveWorkerResult
from .retries import RESUMING
from .seam import ControlChannel, ControlSignalStatus, is_suspended_flow_run_state
from .spares import Spares
from .states import States, is_passing, name_of_end
from .voice import repeat
from .wake import UNCOMMITTED, asks_to_stop
from .wire import Message

_MIB = 1024 * 1024
AGAIN = 3.0  # seconds until a run is tried again that could not be started for a reason that passes
_HOOK_PATIENCE = 60.0  # seconds for the hooks of a run whose own process was killed


class Attempt:
    """A run that is to be claimed, or is, and its process."""

    def __init__(
        self,
        flow_run: FlowRun,
        *,
        states: States,
        control: ControlChannel,
        spares: Spares,
    ) -> None:
        self.flow_run = flow_run
        due = flow_run.next_scheduled_start_time
        self.start_at = due.timestamp() if due else 0.0  # epoch seconds
        self.spare: Spare | None = None
        self.ahead: asyncio.Future[bool] | None = None  # the handing over, where it does not wait for the claim
        self.claimed, self.lost = False, False  # by this worker; to another
        self.cancel_asked = False
        self.waits = False  # it is scheduled again while it is here: given back, retried or resumed
        self.begun = asyncio.Event()  # its flow is Running, or never will be
        self._states = states
        self._control = control
        self._spares = spares
        self._concluded = False
        self._asked = ""  # the kind of state that its process has proposed and not yet been given
        self._trouble = ""
        self._hooks: list[str] = []  # what its flow wants to be told of: "crashed", "cancelling"
        self._grace = 0.0
        self._end: tuple[str, str] | None = None  # (verb of States, message): why this worker killed the process
        self._order: Message = {}
        self._limit: float | None = None
        self._leftovers = contextlib.ExitStack()

    def hand_over(
        self, spare: Spare, configuration: ProactiveJobConfiguration, known: dict[str, Any], *, owner: Owner
    ) -> None:
        """Have `spare` load the run's flow; that begins when it is followed, and not before.

        `known` is what Jobs knows of the run, so that its process need not ask.
        """
        self._grace, self._limit = configuration.cancel_grace, configuration.time_limit
        port, token = self._control.register(self.flow_run.id)
        self._leftovers.callback(self._control.unregister, self.flow_run.id)
        folder = configuration.working_dir
        if folder is None:
            folder = Path(tempfile.mkdtemp(suffix="prefect"))
            self._leftovers.callback(shutil.rmtree, folder, ignore_errors=True)
        env = {name: value for name, value in configuration.env.items() if os.environ.get(name) != value}
        env |= {"PREFECT__CONTROL_PORT": str(port), "PREFECT__CONTROL_TOKEN": token}
        self._order = {
            "flow_run": self.flow_run.model_dump(mode="json"),
            **known,
            "env": env,
            "working_dir": str(folder),
            "memory_limit": configuration.memory_limit and configuration.memory_limit * _MIB,
            "start_at": self.start_at,
            "claim": owner.claim(),
            "owner": owner.signature(spare.pid),
        }
        spare.channel.send(self._order)

    async def drop(self) -> None:
        """Let go of a run that is not followed: what was prepared for it ends without having begun it."""
        if self.ahead is not None:
            await asyncio.gather(self.ahead, return_exceptions=True)
        with self._leftovers:
            if self.spare is not None:
                self.spare.kill()
                await self.spare.ended()

    async def follow(self) -> ProactiveWorkerResult:
        """Let the flow begin, follow it to its end, and tell Prefect what its process could not."""
        assert self.spare is not None, "it was handed over"
        spare, limit = self.spare, self._limit
        timer = None
        if limit:  # counted from its instant, which it may be ahead of
            wait = limit + max(0.0, self.start_at - time.time())
            timer = asyncio.get_running_loop().call_later(wait, self._time_is_up, limit)
        with self._leftovers:
            try:
                spare.channel.send({"begin": True})
                if self.cancel_asked or self._end is not None:
                    spare.kill()
                await self._hear(spare)
                status = await spare.ended()
                if not self._concluded:
                    await self._tell_end(spare.pid, status)
                elif self.cancel_asked:  # its end was refused, if it was told after that was asked
                    await self._states.cancelled(self.flow_run.id, "Cancelled while it was ending.")
            finally:
                self.begun.set()
                if timer is not None:
                    timer.cancel()
        return ProactiveWorkerResult(identifier=str(spare.pid), status_code=0 if self._concluded else status or 1)

    async def _hear(self, spare: Spare) -> None:
        with contextlib.suppress(EOFError):
            while True:
                message = await spare.channel.receive()
                repeat(message)
                if "running" in message or "concluded" in message:
                    self.begun.set()
                self._asked = "" if "running" in message else message.get("asks", self._asked)
                if "later" in message:
                    self._states.tell_later(self.flow_run.id, message["later"])
                self._concluded = self._concluded or "concluded" in message
                self._trouble = message.get("trouble", self._trouble)
                self._hooks = message.get("hooks", self._hooks)

    async def _tell_end(self, pid: int, status: int) -> None:
        """The state that the process left untold. A process that concluded has told it itself."""
        await self._tell_why(pid, status)
        await self._states.leave_to_workers(self.flow_run.id)

    async def _tell_why(self, pid: int, status: int) -> None:
        run, fence = self.flow_run.id, Fence(self.flow_run)
        if self._asked:
            await self._states.arrived(run, self._asked)
        if self._end is not None and self._end[0] == "timed_out":
            await self._states.timed_out(run, self._end[1], fence)
        elif self.cancel_asked:
            why = "Cancelled; the run's process had to be killed."
            await self._tell_hooks("cancelling", Cancelling(message=why))
            await self._states.cancelled(run, why, fence)
        else:
            why = self._end[1] if self._end else self._trouble or f"The run's process {pid} {name_of_end(status)}."
            # Only a run whose flow has not begun goes back.
            if self._end is not None and await self._states.give_back(self.flow_run, why, fence):
                return
            if await self._states.crashed(run, why, fence):
                await self._tell_hooks("crashed", Crashed(message=why))

    async def _tell_hooks(self, kind: str, state: State[Any]) -> None:
        """Run the flow's hooks for a state that its own process could not tell of, in a process like that one."""
        if kind not in self._hooks:
            return
        try:
            spare = await self._spares.take()
            await spare.forked()
        except ChildProcessError:
            return
        spare.channel.send({**self._order, "tell": state.model_dump(mode="json")})
        patience = asyncio.get_running_loop().call_later(_HOOK_PATIENCE, spare.kill)
        with contextlib.suppress(EOFError):
            while True:
                repeat(await spare.channel.receive())
        await spare.ended()
        patience.cancel()

    async def put_off(self, error: Exception) -> bool:
        """The run was not started: it goes back for a while, or is Crashed if that would only happen again.

        Gives whether it was not even claimed, so that it is to be looked for again.
        """
        run, why = self.flow_run.id, f"The worker could not start it: {type(error).__name__}: {error}"
        if is_passing(error):
            return not await self._states.put_off(run, AGAIN, why)
        if self.claimed:
            await self._states.crashed(run, why)
        return False

    def is_news_of_before(self, event: Event) -> bool:
        """Whether the event tells what became of the run before it came to be what this is an attempt at."""
        state = self.flow_run.state
        return state is not None and event.occurred < state.timestamp

    def _time_is_up(self, limit: float) -> None:
        self.kill("timed_out", f"The run took longer than its time limit of {limit:g} seconds and was killed.")

    def kill(self, verb: str, why: str) -> None:
        """Kill the process group at once; the run's state will be that of `verb`, one of States."""
        if self._end is None and not self._concluded:
            self._end = (verb, why)
        if self.spare is not None:
            self.spare.kill()

    async def cancel(self) -> None:
        """Stop the run: let it clean up for its grace, then kill it with all that it started."""
        if self.cancel_asked:
            return
        self.cancel_asked = True
        if not self.claimed or self.spare is None or not self.spare.alive:
            return
        answer = await self._control.signal(self.flow_run.id, "cancel")
        if answer is ControlSignalStatus.ALREADY_CONCLUDED:
            return
        # The engine raises this signal in the flow as a cancellation, since it acknowledged that one is coming.
        self.spare.kill(signal.SIGTERM if answer is ControlSignalStatus.ACKNOWLEDGED else signal.SIGKILL)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.spare.ended(), self._grace)
        self.spare.kill()

    async def catch_up(self) -> None:
        """Heed what its state asks for: to stop, or to stop at the flow's next boundary since it was suspended."""
        for wait in (0.0, *UNCOMMITTED):
            await asyncio.sleep(wait)
            claimed = self.claimed
            state = await self._states.learn(self.flow_run.id)
            if state is None or self.spare is None or not self.spare.alive:
                return
            if asks_to_stop(state.type, state.name):
                await self.cancel()
                return
            # One that only pauses waits in its process, and asks by itself. One that was suspended, and resumed before
            # it had stopped, is anybody's to claim: so it has to leave its process all the same.
            suspended = state if is_suspended_flow_run_state(state) else None
            if claimed and state.name == RESUMING:
                suspended = Suspended()
            if suspended is not None:
                self.spare.channel.send({"suspended": suspended.model_dump(mode="json")})
                return
