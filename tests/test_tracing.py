"""Spans: no-ops without an SDK, one trace across processes with one."""

from __future__ import annotations

import subprocess
import sys

import pytest
from opentelemetry.trace import StatusCode

from proactive_prefect.tracing import LABEL, span, trace_labels, traceparent

from .tracing import Spans, spans

__all__ = ["spans"]

WITHOUT = """
from proactive_prefect.tracing import span, trace_labels, traceparent
with span("a", attributes={"k": "v"}) as current:
    assert not current.get_span_context().is_valid
    assert traceparent() is None and trace_labels() == {}
"""


def test_without_an_sdk_nothing_is_made() -> None:
    """No span, no label on runs."""
    subprocess.run([sys.executable, "-c", WITHOUT], check=True, timeout=60)


def test_a_trace_goes_on_in_another_process(spans: Spans) -> None:
    """What was a run's label is the parent of what the run does."""
    with span("call", attributes={"rule": "a", "nothing": None}):
        labels = trace_labels()
    assert set(labels) == {LABEL}
    assert traceparent() is None
    with span("run", parent=labels[LABEL], attributes={}), span("action", attributes={}):
        pass
    [call], [run], [action] = (spans.named(name) for name in ("call", "run", "action"))
    assert run.parent is not None
    assert action.parent is not None
    assert call.context is not None
    assert run.context is not None
    assert run.parent.span_id == call.context.span_id
    assert action.parent.span_id == run.context.span_id
    assert dict(call.attributes or {}) == {"rule": "a"}


@pytest.mark.parametrize("parent", [None, "", "not a traceparent", "00-zz-zz-01"])
def test_a_parent_that_cannot_be_read_begins_a_trace(spans: Spans, parent: str | None) -> None:
    """Whatever stands in a label, the run goes on."""
    with span("run", parent=parent, attributes={}):
        pass
    [run] = spans.named("run")
    assert run.parent is None


def test_an_error_marks_the_span_and_keeps_its_text_out(spans: Spans) -> None:
    """The type is told, the message may be a secret."""
    with pytest.raises(ValueError, match="my-secret"), span("run", attributes={}):
        raise ValueError("my-secret")
    [run] = spans.named("run")
    assert run.status.status_code is StatusCode.ERROR
    assert "my-secret" not in run.to_json()
