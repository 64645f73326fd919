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
from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.objects import FlowRun, ServerDefaultResultStorage, State
from prefect.client.schemas.responses import DeploymentResponse
from prefect.context import AsyncClientContext, SyncClientContext
from prefect.engine import handle_engine_signals
from prefect.flow_engine import run_flow
from prefect.flows import Flow, load_flow_from_flow_run
from prefect.logging.handlers import PrefectConsoleHandler
from prefect.logging.loggers import flow_run_logger

from . import seam, wire
from .voice import Voice


def rehearse() -> None:
    """In the forkserver: do once what is slow at first: make a flow, check its arguments, print a line."""

    @flow
    def rehearsal(text: str, number: int = 0) -> None: ...

    rehearsal.validate_parameters({"text": "any"})
    record = logging.LogRecord("prefect.flow_runs", logging.INFO, __file__, 0, "line of 'any' http://a/b :x:", (), None)
    PrefectConsoleHandler(stream=io.StringIO()).emit(record)


def _know(client: Any, flow_run: FlowRun, deployment: DeploymentResponse, order: wire.Message, voice: Voice) -> None:
    """Let `client` (async or sync) answer what the worker knows already, and sign the engine's own update of the run.

    The signature, in `infrastructure_pid`, tells any other worker whose run it is; added to the request that the
    engine makes anyway, it costs none.
    """
    read_deployment, update_flow_run = client.read_deployment, client.update_flow_run
    storage = ServerDefaultResultStorage.model_validate(order["storage"])

    async def read_known_deployment(deployment_id: UUID | str) -> DeploymentResponse:
        if str(deployment_id) == str(deployment.id):
            return deployment
        answer: DeploymentResponse = await read_deployment(deployment_id)
        return answer

    def update_signed(flow_run_id: UUID, **changes: Any) -> Any:
        if flow_run_id == flow_run.id:
            changes.setdefault("infrastructure_pid", order["owner"])
        return update_flow_run(flow_run_id=flow_run_id, **changes)

    client.update_flow_run = update_signed
    if isinstance(client, PrefectClient):
        client.read_deployment = read_known_deployment  # type: ignore[method-assign]
        client.read_server_default_result_storage = lambda: _soon(storage)  # type: ignore[method-assign]
    else:
        client.read_server_default_result_storage = lambda: storage
    _spare_first_reading(client, flow_run, voice)


def _spare_first_reading(client: Any, flow_run: FlowRun, voice: Voice) -> None:
    """Let `client` answer the engine's first reading of its run, right after it set it Running, from what it knows.

    The engine keeps the state that the server gave it on this very object. Every later reading asks the server.
    """
    read_flow_run = client.read_flow_run
    is_async = isinstance(client, PrefectClient)

    def read_known_run(flow_run_id: UUID) -> Any:
        if flow_run_id != flow_run.id or flow_run.state is None or not flow_run.state.is_running():
            return read_flow_run(flow_run_id)
        client.read_flow_run = read_flow_run
        voice.say(running=True)
        return _soon(flow_run) if is_async else flow_run

    client.read_flow_run = read_known_run


async def _soon(value: Any) -> Any:
    return value


class _Spare:
    """The clients of this process, open before there is a run."""

    def __init__(self) -> None:
        seam.quieten_engine()
        self.sync_client = SyncClientContext().__enter__().client
        self.runner = asyncio.Runner()  # takes over this context, and so the client above
        self.runner.run(self._open())

    async def _open(self) -> None:
        context = AsyncClientContext()
        await context.__aenter__()  # stays in the runner's context until the process ends
        self.client = context.client

    async def load(self, flow_run: FlowRun) -> Flow[..., Any]:
        flow: Flow[..., Any] = await load_flow_from_flow_run(flow_run=flow_run, use_placeholder_flow=False)
        return flow

    async def tell(self, flow: Flow[..., Any], flow_run: FlowRun, state: State[Any]) -> None:
        """Run the flow's hooks for the state of a run whose own process was killed."""

        async def known(_: FlowRun) -> Flow[..., Any]:
            return flow

        hooks = seam.HookRunner(resolve_flow=known)
        await hooks.run_crashed_hooks(flow_run, state)
        await hooks.run_cancellation_hooks(flow_run, state)


def _listen(sock: socket.socket, flow_run_id: UUID) -> None:
    """Hear the worker during the run: of a suspension, or of its own end, which ends this run and all it started."""
    while True:
        try:
            message = wire.receive(sock)
        except (EOFError, OSError):
            os.killpg(0, signal.SIGKILL)
            return
        if "suspended" in message:
            seam.mark_suspended(flow_run_id, State.model_validate(message["suspended"]))


def _take_on(order: wire.Message) -> None:
    """Become the process that the job asks for: folder, environment, limits."""
    os.environ.update({name: str(value) for name, value in order["env"].items()})
    os.chdir(order["working_dir"])
    sys.path[0] = order["working_dir"]
    if (memory := order.get("memory_limit")) is not None:
        # Data pages only: the address space of a Python process says little about what it uses.
        resource.setrlimit(resource.RLIMIT_DATA, (memory, memory))
    if (numpy := sys.modules.get("numpy")) is not None:
        numpy.random.seed()  # forks would all draw the same numbers


def _drive(spare: _Spare, flow: Flow[..., Any], flow_run: FlowRun) -> None:
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


def _run(spare: _Spare, voice: Voice, order: wire.Message) -> None:
    flow_run = FlowRun.model_validate(order["flow_run"])
    deployment = DeploymentResponse.model_validate(order["deployment"])
    voice.speak_for(flow_run, deployment, order["flow"])
    for client in (spare.client, spare.sync_client):
        _know(client, flow_run, deployment, order, voice)
    with handle_engine_signals(flow_run.id):
        try:
            flow = spare.runner.run(spare.load(flow_run))
        except Exception as error:
            flow_run_logger(flow_run).error("The flow could not be loaded", exc_info=True)
            voice.say(trouble=f"The flow could not be loaded: {type(error).__name__}: {error}")
            raise
        if (told := order.get("tell")) is not None:
            return spare.runner.run(spare.tell(flow, flow_run, State.model_validate(told)))
        wanted = {"crashed": flow.on_crashed_hooks, "cancelling": flow.on_cancellation_hooks}
        voice.say(hooks=[kind for kind, hooks in wanted.items() if hooks])
        if (early := order["start_at"] - time.time()) > 0:
            time.sleep(early)
        try:
            _drive(spare, flow, flow_run)
        finally:
            spare.runner.close()  # an async flow that was ended by a signal reports its end in here


def run_one(sock: socket.socket) -> NoReturn:
    """The life of one spare over its `sock` to the worker, up to the exit of its process.

    Status 0: the engine has told the server how the run ended (or that it is paused). Anything else is for the worker
    to tell.
    """
    spare = _Spare()
    wire.send(sock, {"ready": os.getpid()})
    try:
        order = wire.receive(sock)
    except EOFError:
        os._exit(0)  # never had a run
    _take_on(order)
    voice = Voice(sock)
    threading.Thread(target=_listen, args=(sock, UUID(order["flow_run"]["id"])), daemon=True).start()
    status: Any = 0
    try:
        _run(spare, voice, order)
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
