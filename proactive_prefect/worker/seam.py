"""The one place for names of Prefect that are not public, each with the reason it is needed.

`tests/worker/test_seam.py` fails when one of them goes or changes its form.
"""

from __future__ import annotations

import asyncio
import atexit
import ctypes
import gc
import logging
import signal
import ssl
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from functools import cache
from types import MappingProxyType, SimpleNamespace
from typing import Any
from uuid import UUID, uuid4

import certifi
import prefect.client.orchestration as orchestration
import prefect.deployments.steps.core as steps
import prefect.events.related as related
import prefect.flow_engine as flow_engine
import prefect.flows as flows
from prefect._flow_run_suspension import (
    FlowRunSuspensionRequest,
    is_suspended_flow_run_state,
    mark_flow_run_suspension_requested,
)
from prefect.client.orchestration import PrefectClient, SyncPrefectClient
from prefect.client.schemas.objects import FlowRun, State
from prefect.client.schemas.responses import DeploymentResponse, OrchestrationResult
from prefect.events import Event
from prefect.events.clients import get_events_client
from prefect.events.worker import EventsWorker, ProcessPoolForwardingEventsClient
from prefect.logging.handlers import APILogWorker, PrefectConsoleHandler, set_api_log_sink
from prefect.runner._control_channel import ControlChannel, ControlSignalStatus
from prefect.runner._hook_runner import HookRunner
from prefect.settings import PREFECT_API_SSL_CERT_FILE, PREFECT_WORKER_QUERY_SECONDS
from prefect.types._datetime import now
from prefect.workers.base import BaseJobConfiguration, BaseWorker
from pydantic import BaseModel

__all__ = [
    "ControlChannel",
    "ControlSignalStatus",
    "HookRunner",
    "base_environment",
    "complete_models",
    "end_services",
    "give_back_memory",
    "give_events",
    "give_logs",
    "heed_interrupt",
    "is_suspended_flow_run_state",
    "know_related",
    "leave_schemas",
    "mark_suspended",
    "print_plainly",
    "quieten_engine",
    "renew",
    "send_event",
    "send_log",
    "serve_health",
    "share_tls",
    "speak_alone",
]


@contextmanager
def _suspension_comes_by_pipe(flow_run_id: UUID, suspension_request: FlowRunSuspensionRequest) -> Iterator[None]:
    """Stands in for `observe_flow_run_suspension`; the request is already registered by its caller."""
    yield


def quieten_engine() -> None:
    """Let the worker do once for all runs what the engine does in every run before its first line.

    The engine opens a websocket in a thread of its own to hear of its suspension, and waits for it; and one more to
    send signs of life. The worker hears and sends both for all its runs over the connections it has.
    """
    engine: Any = flow_engine
    engine.observe_flow_run_suspension = _suspension_comes_by_pipe
    engine._send_heartbeats = lambda *_args, **_kwargs: nullcontext()


class _SharedTls:
    """The `ssl` module as `prefect.client.orchestration` sees it, with one verified context per certificate file."""

    def __init__(self) -> None:
        self._contexts: dict[str, ssl.SSLContext] = {}

    def create_default_context(self, *, cafile: str | None = None) -> ssl.SSLContext:
        if cafile is None:  # Prefect goes on to change that one
            return ssl.create_default_context()
        if cafile not in self._contexts:
            self._contexts[cafile] = ssl.create_default_context(cafile=cafile)
        return self._contexts[cafile]

    def __getattr__(self, name: str) -> Any:
        return getattr(ssl, name)


def share_tls() -> None:
    """Read the certificates once for all runs: done anew by each client of each run, it is half the cost of a spare."""
    module: Any = orchestration
    module.ssl = shared = _SharedTls()
    shared.create_default_context(cafile=PREFECT_API_SSL_CERT_FILE.value() or certifi.where())


def leave_schemas() -> None:
    """Have a flow make its parameters' schema when that is asked for, as only deploying does: half its loading."""
    module: Any = flows
    make, schema = module.parameter_schema, module.ParameterSchema

    def given(flow: Any, function: Any) -> None:
        flow.__dict__["parameters"] = function

    def asked(flow: Any) -> Any:
        value = flow.__dict__["parameters"]
        if not isinstance(value, schema):
            value = flow.__dict__["parameters"] = make(value)
        return value

    module.parameter_schema = lambda function: function
    module.Flow.parameters = property(asked, given)


def renew(client: PrefectClient | SyncPrefectClient) -> None:
    """Make a client that was made before the fork this process's own: its token against forgery is bound to an id."""
    inner: Any = client._client
    inner.csrf_client_id = uuid4()


def print_plainly() -> None:
    """Have Prefect's console handler write lines as they are where nobody sees colours: by far the cheaper."""
    kind: Any = PrefectConsoleHandler
    emit = kind.emit

    def emit_plainly(handler: PrefectConsoleHandler, record: logging.LogRecord) -> None:
        if handler.console.is_terminal or handler.console._markup:
            emit(handler, record)
        else:
            logging.StreamHandler.emit(handler, record)

    kind.emit = emit_plainly


def mark_suspended(flow_run_id: UUID, state: State[Any]) -> None:
    """Tell the engine of this process that its run was suspended from outside: it stops at its next boundary."""
    mark_flow_run_suspension_requested(flow_run_id, state)


def give_back_memory() -> None:
    """Collect garbage, and let the C library return what is free, where it can: a few milliseconds."""
    gc.collect()
    if (trim := getattr(ctypes.CDLL(None), "malloc_trim", None)) is not None:
        trim(0)


@cache
def base_environment() -> Mapping[str, str]:
    """The environment that Prefect gives to each run: its settings, as variables. Told once, since it takes 50 ms."""
    return MappingProxyType(BaseJobConfiguration._base_environment())


_KEPT: list[Any] = []


def complete_models() -> None:
    """Have pydantic finish Prefect's models, which it leaves to their first use: in each run, a third of a second.

    And keep the one that the engine makes for each state it proposes, which pydantic forgets with its last use.
    """
    _KEPT.append(OrchestrationResult[Any])

    def below(model: type[BaseModel]) -> Iterator[type[BaseModel]]:
        for each in model.__subclasses__():
            yield each
            yield from below(each)

    for model in set(below(BaseModel)):
        if model.__module__.startswith("prefect.") and not model.__pydantic_complete__:
            model.model_rebuild(raise_errors=False)


def give_logs(sink: Callable[[dict[str, Any]], None]) -> None:
    """Have Prefect's log handler give each line for the API to `sink`."""
    set_api_log_sink(sink)


def give_events(queue: Any) -> None:
    """Have Prefect put each event of this process into `queue`, as `(kind, event)`."""
    EventsWorker.set_client_override(ProcessPoolForwardingEventsClient, event_queue=queue)
    module: Any = steps
    module.get_events_client = lambda **_: ProcessPoolForwardingEventsClient(queue)


def speak_alone() -> None:
    """Undo the two above: Prefect sends logs and events of this process by itself."""
    set_api_log_sink(None)
    EventsWorker.set_client_override(None)
    module: Any = steps
    module.get_events_client = get_events_client


def know_related(flow_run: FlowRun, deployment: DeploymentResponse, flow_name: str) -> None:
    """Let Prefect find here what it relates each event of the run to, instead of asking for each."""

    cache: Any = related.RESOURCE_CACHE

    def know(kind: str, key: Any, name: str | None, tags: list[str], resource_id: Any = None) -> None:
        if key is not None and name is not None:
            thing: Any = SimpleNamespace(id=resource_id or key, name=name, tags=tags)
            cache[f"{kind}.{key}"] = ({"kind": kind, "object": thing}, now("UTC"))

    know("flow", flow_run.flow_id, flow_name, [])
    know("deployment", deployment.id, deployment.name, deployment.tags)
    know("work-queue", flow_run.work_queue_id, flow_run.work_queue_name, [])
    know("work-pool", flow_run.work_pool_name, flow_run.work_pool_name, [], flow_run.work_pool_id)


def send_log(log: dict[str, Any]) -> None:
    """Send a log line to the API, in a batch with others."""
    APILogWorker.instance().send(log)


def send_event(event: Event) -> None:
    """Send an event, over the one websocket for events of this process."""
    EventsWorker.instance().send(event)


def end_services() -> None:
    """What the interpreter does first when it ends: wait for threads, Prefect's services among them, and clean up.

    The rest of its end, the taking apart of all that was imported, would first copy all memory shared with the fork.
    """
    ending: Any = threading
    ending._shutdown()
    atexit._run_exitfuncs()


# A shell has what it starts in the background ignore SIGINT.
_IGNORES_INTERRUPT = signal.getsignal(signal.SIGINT) is signal.SIG_IGN


def heed_interrupt() -> None:
    """Let SIGTERM end a worker that was started in the background: Prefect's CLI does it by SIGINT, ignored there."""
    task = asyncio.current_task()
    if _IGNORES_INTERRUPT and task is not None and threading.current_thread() is threading.main_thread():
        asyncio.get_running_loop().add_signal_handler(signal.SIGINT, task.cancel)


@contextmanager
def serve_health(worker: BaseWorker[Any, Any, Any]) -> Iterator[None]:
    """Answer Prefect's health check of a worker for as long as this lasts."""
    from prefect.workers.server import build_healthcheck_server  # a web framework, which few need

    server = build_healthcheck_server(worker, PREFECT_WORKER_QUERY_SECONDS.value())
    thread = threading.Thread(target=server.run, name="health", daemon=True)
    thread.start()
    try:
        yield
    finally:
        server.should_exit = True
        thread.join()
