"""What a spare process does: get everything ready, wait for one run, run it with Prefect's own engine, end.

The run itself is Prefect's, unchanged: same loading of the flow (pull steps included), same engine, states, logs,
retries and hooks. Only what every run would fetch anew is handed over by the worker: the flow run, its deployment
and the instant to begin at.
"""

from __future__ import annotations

import asyncio
import io
import logging
import os
import resource
import signal
import socket
import sys
import threading
import time
import traceback
from types import AsyncGeneratorType, GeneratorType
from typing import Any, NoReturn
from uuid import UUID

from prefect import flow
from prefect.client.schemas.objects import FlowRun, State
from prefect.client.schemas.responses import DeploymentResponse
from prefect.context import AsyncClientContext, SyncClientContext
from prefect.engine import handle_engine_signals
from prefect.flow_engine import run_flow
from prefect.flows import Flow, load_flow_from_flow_run
from prefect.logging.handlers import PrefectConsoleHandler
from prefect.logging.loggers import flow_run_logger

from . import seam, wire
from .known import Known, Places
from .voice import Voice


def rehearse() -> None:
    """In the forkserver: do once what is slow at first: make a flow, check its arguments, print a line, find a host."""

    @flow
    def rehearsal(text: str, number: int = 0) -> None: ...

    rehearsal.validate_parameters({"text": "any"})
    record = logging.LogRecord("prefect.flow_runs", logging.INFO, __file__, 0, "line of 'any' http://a/b :x:", (), None)
    PrefectConsoleHandler(stream=io.StringIO()).emit(record)
    socket.getaddrinfo("localhost", 80)


class Clients:
    """Prefect's two clients, made in the forkserver, where nothing is connected yet, and opened in each spare."""

    def __init__(self) -> None:
        self._sync, self._async = SyncClientContext(), AsyncClientContext()
        self.places = Places()

    def open(self) -> None:
        """Be this process's own."""
        self.sync_client, self.client = self._sync.client, self._async.client
        for client in (self.sync_client, self.client):
            seam.renew(client)
        self._sync.__enter__()
        self.runner = asyncio.Runner()  # takes over this context, and so the client above
        self.runner.run(self._async.__aenter__())  # stays in the runner's context until the process ends


async def _load(flow_run: FlowRun) -> Flow[..., Any]:
    flow: Flow[..., Any] = await load_flow_from_flow_run(flow_run=flow_run, use_placeholder_flow=False)
    return flow


async def _tell(flow: Flow[..., Any], flow_run: FlowRun, state: State[Any]) -> None:
    """Run the flow's hooks for the state of a run whose own process was killed."""

    async def known(_: FlowRun) -> Flow[..., Any]:
        return flow

    hooks = seam.HookRunner(resolve_flow=known)
    await hooks.run_crashed_hooks(flow_run, state)
    await hooks.run_cancellation_hooks(flow_run, state)


def _listen(sock: socket.socket, flow_run_id: UUID, begin: threading.Event) -> None:
    """Hear the worker: that the run may begin, that it was suspended, or (of its own end) that all of it is to end."""
    while True:
        try:
            message = wire.receive(sock)
        except (EOFError, OSError):
            os.killpg(0, signal.SIGKILL)
            return
        if "begin" in message:
            begin.set()
        if "suspended" in message:
            seam.mark_suspended(flow_run_id, State.model_validate(message["suspended"]))


def _take_on(order: wire.Message) -> None:
    """Become the process that the job asks for: folder, environment, limits."""
    for name, value in order["env"].items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = str(value)
    time.tzset()  # TZ may be among them
    os.chdir(order["working_dir"])
    sys.path[0] = order["working_dir"]
    if (memory := order.get("memory_limit")) is not None:
        # Data pages only: the address space of a Python process says little about what it uses.
        resource.setrlimit(resource.RLIMIT_DATA, (memory, memory))
    if (numpy := sys.modules.get("numpy")) is not None:
        numpy.random.seed()  # forks would all draw the same numbers


def _drive(spare: Clients, flow: Flow[..., Any], flow_run: FlowRun) -> None:
    """Run the flow to its end, whichever of the four kinds of function it is."""
    logger: Any = flow_run_logger(flow_run)
    answer: Any = run_flow(flow, flow_run=flow_run, error_logger=logger)
    if isinstance(answer, GeneratorType):
        for _ in answer:
            pass
    elif isinstance(answer, AsyncGeneratorType):

        async def exhaust() -> None:
            async for _ in answer:
                pass

        spare.runner.run(exhaust())
    elif asyncio.iscoroutine(answer):
        spare.runner.run(answer)


def _run(spare: Clients, voice: Voice, order: wire.Message, begin: threading.Event) -> None:
    flow_run = FlowRun.model_validate(order["flow_run"])
    deployment = DeploymentResponse.model_validate(order["deployment"])
    voice.speak_for(flow_run, deployment, order["flow"])
    known = Known(flow_run, deployment, order, voice, spare.places)
    for client in (spare.client, spare.sync_client):
        known.inform(client)
    with handle_engine_signals(flow_run.id):
        try:
            flow = spare.runner.run(_load(flow_run))
        except Exception as error:
            flow_run_logger(flow_run).error("The flow could not be loaded", exc_info=True)
            voice.say(trouble=f"The flow could not be loaded: {type(error).__name__}: {error}")
            raise
        if (told := order.get("tell")) is not None:
            return spare.runner.run(_tell(flow, flow_run, State.model_validate(told)))
        wanted = {"crashed": flow.on_crashed_hooks, "cancelling": flow.on_cancellation_hooks}
        voice.say(hooks=[kind for kind, hooks in wanted.items() if hooks])
        begin.wait()  # it may be that the run is not yet claimed
        try:
            _drive(spare, flow, flow_run)
        finally:
            spare.runner.close()  # an async flow that was ended by a signal reports its end in here


def run_one(sock: socket.socket, spare: Clients) -> NoReturn:
    """The life of one spare over its `sock` to the worker, up to the exit of its process.

    Status 0: the engine has told the server how the run ended (or that it is paused). Anything else is for the worker
    to tell.
    """
    spare.open()
    wire.send(sock, {"ready": os.getpid()})
    try:
        order = wire.receive(sock)
    except EOFError:
        os._exit(0)  # never had a run
    _take_on(order)
    voice = Voice(sock)
    begin = threading.Event()
    threading.Thread(target=_listen, args=(sock, UUID(order["flow_run"]["id"]), begin), daemon=True).start()
    status: Any = 0
    try:
        _run(spare, voice, order, begin)
    except SystemExit as ended:
        status = ended.code or 0
    except BaseException:
        traceback.print_exc()
        status = 1
    if status == 0:
        voice.say(concluded=True)
    seam.end_services()
    voice.end()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status if isinstance(status, int) else 1)
