"""The names of Prefect that are not public and that the worker builds on are still there, in the form that it needs."""

from __future__ import annotations

import importlib
import inspect

import prefect.client.orchestration as orchestration
import prefect.flow_engine as flow_engine
from prefect._flow_run_suspension import mark_flow_run_suspension_requested, observe_flow_run_suspension
from prefect.runner._control_channel import ControlChannel, ControlSignalStatus
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
