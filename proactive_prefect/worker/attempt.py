"""One run on this worker, from its claim until its process is gone and its state is told."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import tempfile
from logging import Logger, LoggerAdapter
from typing import Any

from prefect.client.schemas.objects import FlowRun
from prefect.client.schemas.responses import DeploymentResponse

from .job import ProactiveJobConfiguration, ProactiveWorkerResult
from .seam import ControlChannel, ControlSignalStatus
from .spares import Spare
from .states import States, name_of_end

_MIB = 1024 * 1024


class Attempt:
    """A claimed run and its process."""

    def __init__(
        self,
        flow_run: FlowRun,
        *,
        states: States,
        control: ControlChannel,
        logger: Logger | LoggerAdapter[Any],
    ) -> None:
        self.flow_run = flow_run
        self.spare: Spare | None = None
        self.cancel_asked = False
        self._states = states
        self._control = control
        self._logger = logger
        self._concluded = False
        self._trouble = ""
        self._grace = 0.0
        self._end: tuple[str, str] | None = None  # (verb of States, message): why this worker killed the process

    async def run(
        self,
        spare: Spare,
        configuration: ProactiveJobConfiguration,
        deployment: DeploymentResponse,
        *,
        start_at: float,
        owner: str,
    ) -> ProactiveWorkerResult:
        """Hand the run to `spare`, follow it to its end, and tell Prefect what its process could not."""
        self.spare = spare
        self._grace = configuration.cancel_grace
        port, token = self._control.register(self.flow_run.id)
        scratch = None if configuration.working_dir else tempfile.mkdtemp(suffix="prefect")
        env = {name: value for name, value in configuration.env.items() if os.environ.get(name) != value}
        env |= {"PREFECT__CONTROL_PORT": str(port), "PREFECT__CONTROL_TOKEN": token}
        limit = configuration.time_limit
        timer = asyncio.get_running_loop().call_later(limit, self._time_is_up, limit) if limit else None
        try:
            spare.channel.send(
                {
                    "flow_run": self.flow_run.model_dump(mode="json"),
                    "deployment": deployment.model_dump(mode="json"),
                    "env": env,
                    "working_dir": str(configuration.working_dir or scratch),
                    "memory_limit": configuration.memory_limit and configuration.memory_limit * _MIB,
                    "start_at": start_at,
                    "owner": owner,
                }
            )
            if self.cancel_asked or self._end is not None:
                spare.kill()
            await self._follow(spare)
            status = await spare.ended()
        finally:
            if timer is not None:
                timer.cancel()
            self._control.unregister(self.flow_run.id)
            if scratch is not None:
                shutil.rmtree(scratch, ignore_errors=True)
        await self._tell_end(spare.pid, status)
        return ProactiveWorkerResult(identifier=str(spare.pid), status_code=0 if self._concluded else status or 1)

    async def _follow(self, spare: Spare) -> None:
        with contextlib.suppress(EOFError):
            while True:
                message = await spare.channel.receive()
                self._concluded = self._concluded or "concluded" in message
                self._trouble = message.get("trouble", self._trouble)

    async def _tell_end(self, pid: int, status: int) -> None:
        """The state that the process left untold. A process that concluded has told it itself."""
        if self._concluded:
            return
        run = self.flow_run.id
        if self._end is not None and self._end[0] == "timed_out":
            await self._states.timed_out(run, self._end[1])
        elif self.cancel_asked:
            await self._states.cancelled(run, "Cancelled; the run's process had to be killed.")
        elif self._end is not None:
            await self._states.give_back(self.flow_run, self._end[1])  # only if its flow has not begun
            await self._states.crashed(run, self._end[1])
        else:
            why = self._trouble or f"The run's process {pid} {name_of_end(status)}."
            await self._states.crashed(run, why)

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
        if self.spare is None or not self.spare.alive:
            return
        answer = await self._control.signal(self.flow_run.id, "cancel")
        if answer is ControlSignalStatus.ALREADY_CONCLUDED:
            return
        # The engine raises this signal in the flow as a cancellation, since it acknowledged that one is coming.
        self.spare.kill(signal.SIGTERM if answer is ControlSignalStatus.ACKNOWLEDGED else signal.SIGKILL)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.spare.ended(), self._grace)
        self.spare.kill()

    async def suspend(self) -> None:
        """Tell the flow that it was suspended from outside, if it still is: it stops at its next boundary."""
        state = await self._states.current(self.flow_run.id)
        if state is not None and state.is_paused() and self.spare is not None and self.spare.alive:
            self.spare.channel.send({"suspended": state.model_dump(mode="json")})
