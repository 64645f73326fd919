"""The names of Prefect that are not public and that the worker builds on are still there, in the form that it needs."""

from __future__ import annotations

import atexit
import importlib
import inspect
import logging
import threading

import prefect.client.base as client_base
import prefect.client.orchestration as orchestration
import prefect.deployments.steps.core as steps
import prefect.events.related as related
import prefect.events.worker as events
import prefect.flow_engine as flow_engine
import prefect.flows as flows
import prefect.logging.handlers as handlers
from prefect._flow_run_suspension import mark_flow_run_suspension_requested, observe_flow_run_suspension
from prefect.runner._control_channel import ControlChannel, ControlSignalStatus
from prefect.runner._hook_runner import HookRunner
from prefect.workers.base import BaseJobConfiguration, BaseWorker


def test_the_engine_takes_what_stands_in_for_its_observer() -> None:
    """The engine still observes suspension and sends signs of life by the names that the worker replaces."""
    assert flow_engine.observe_flow_run_suspension is observe_flow_run_suspension
    assert list(inspect.signature(observe_flow_run_suspension).parameters)[:2] == ["flow_run_id", "suspension_request"]
    assert list(inspect.signature(mark_flow_run_suspension_requested).parameters) == ["flow_run_id", "state"]
    assert next(iter(inspect.signature(flow_engine._send_heartbeats).parameters)) == "engine"
    source = inspect.getsource(flow_engine)
    assert "observe_flow_run_suspension(" in source
    assert "with _send_heartbeats(" in source


def test_clients_read_the_certificates_where_the_worker_shares_them() -> None:
    """Both clients of Prefect make their TLS context by the module's `ssl`, in the form that is shared."""
    assert inspect.getsource(orchestration).count("ssl.create_default_context(cafile=cert_file)") == 2


def test_a_flow_makes_its_schema_by_the_name_that_is_replaced() -> None:
    """A flow's schema is made once, by the module's own name, and kept as `parameters`; clients have a token's id."""
    source = inspect.getsource(flows.Flow.__init__)
    assert source.count("parameter_schema(") == 1
    assert "self.parameters: ParameterSchema = parameter_schema(self.fn)" in source
    assert not hasattr(flows.Flow, "parameters")
    assert inspect.getsource(client_base).count("self.csrf_client_id") >= 2


def test_lines_are_printed_by_one_method_of_one_console() -> None:
    """Prefect's console handler is a stream handler that prints what it formats on its console."""
    assert issubclass(handlers.PrefectConsoleHandler, logging.StreamHandler)
    assert "self.console.print(message, soft_wrap=True)" in inspect.getsource(handlers.PrefectConsoleHandler.emit)
    console = handlers.PrefectConsoleHandler().console
    assert console._markup is False
    assert console.is_terminal in (True, False)


def test_what_a_run_s_clients_answer_by_themselves_is_asked_by_these_names() -> None:
    """The engine tells its flow's version and retries, sets states and reads its run by names that can be replaced."""
    source = inspect.getsource(flow_engine)
    assert source.count("self.client.update_flow_run(") == 2
    assert "flow_version=self.flow.version" in source
    for kind in (orchestration.PrefectClient, orchestration.SyncPrefectClient):
        assert list(inspect.signature(kind.set_flow_run_state).parameters)[:3] == ["self", "flow_run_id", "state"]
        assert {"flow_version", "empirical_policy"} <= set(inspect.signature(kind.update_flow_run).parameters)
        assert list(inspect.signature(kind.read_flow_run).parameters) == ["self", "flow_run_id"]


def test_the_control_channel_speaks_the_same_words() -> None:
    """A cancellation is announced to the engine over Prefect's own control channel, before the signal."""
    assert {"register", "unregister", "signal"} <= set(dir(ControlChannel))
    assert {"ACKNOWLEDGED", "ALREADY_CONCLUDED"} <= set(ControlSignalStatus.__members__)
    listener = importlib.import_module("prefect._internal.control_listener")
    assert "PREFECT__CONTROL_PORT" in inspect.getsource(listener)


def test_a_worker_may_still_have_its_own_start() -> None:
    """Prefect's CLI starts a worker by `start` with these options, and a job's base environment is known."""
    assert {"run_once", "with_healthcheck", "printer"} <= set(inspect.signature(BaseWorker.start).parameters)
    assert isinstance(BaseJobConfiguration._base_environment(), dict)


def test_logs_and_events_of_a_run_can_be_given_to_the_worker() -> None:
    """Prefect's log handler takes a sink, its events a forwarding client, and what relates to a run is kept."""
    assert list(inspect.signature(handlers.set_api_log_sink).parameters) == ["sink"]
    assert "_api_log_sink(log)" in inspect.getsource(handlers.emit_api_log)
    assert "emit_api_log(" in inspect.getsource(handlers.APILogHandler.emit)
    forwarding = events.ProcessPoolForwardingEventsClient
    assert next(iter(inspect.signature(forwarding).parameters)) == "event_queue"
    assert forwarding.__name__ in inspect.getsource(importlib.import_module("prefect.events.utilities").emit_event)
    assert "_client_override" in inspect.getsource(events.EventsWorker.instance)
    assert "get_events_client(" in inspect.getsource(steps._emit_pull_step_event)
    assert 'f"{kind}.{obj_id}"' in inspect.getsource(related._get_and_cache_related_object)


def test_a_run_s_process_ends_as_an_interpreter_does() -> None:
    """Python still has what waits for threads, and what runs the functions that are registered for its end."""
    assert callable(getattr(threading, "_shutdown", None))
    assert callable(getattr(atexit, "_run_exitfuncs", None))


def test_hooks_can_be_run_for_a_process_that_was_killed() -> None:
    """Prefect's runner of hooks takes a flow and runs those for a state."""
    assert list(inspect.signature(HookRunner).parameters) == ["resolve_flow"]
    for name in ("run_crashed_hooks", "run_cancellation_hooks"):
        assert list(inspect.signature(getattr(HookRunner, name)).parameters) == ["self", "flow_run", "state"]
