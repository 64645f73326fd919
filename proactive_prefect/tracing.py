"""OpenTelemetry spans, from a call or a due time to the outcome; without an SDK in the process they cost nothing.

A run carries its trace in a label, under the name that Prefect's own telemetry reads and writes: so spans of Prefect,
where they are switched on, belong to the same trace.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from opentelemetry import propagate, trace
from opentelemetry.context import Context
from opentelemetry.trace import Span, SpanKind, Status, StatusCode

__all__ = ["LABEL", "Span", "SpanKind", "fail", "flush", "span", "trace_labels", "traceparent"]

LABEL = "__OTEL_TRACEPARENT"
_FLUSH_MILLISECONDS = 2000


@contextmanager
def span(
    name: str, *, kind: SpanKind = SpanKind.INTERNAL, parent: str | None = None, attributes: Mapping[str, Any]
) -> Iterator[Span]:
    """A span around the block, below the current one, else below `parent` (a traceparent), else of a trace of its own.

    An exception out of the block marks it as failed, by its type: the text may hold what nobody should read.
    """
    if parent is None and isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider):
        yield trace.INVALID_SPAN  # nobody would see it
        return
    known = {key: value for key, value in attributes.items() if value is not None}
    context = None if trace.get_current_span().get_span_context().is_valid else _context(parent)
    tracer = trace.get_tracer("proactive_prefect")
    with tracer.start_as_current_span(
        name, context, kind, known, record_exception=False, set_status_on_exception=False
    ) as current:
        try:
            yield current
        except Exception as error:
            fail(current, type(error).__name__)
            raise


def fail(current: Span, what: str) -> None:
    """Mark a span as failed."""
    current.set_status(Status(StatusCode.ERROR, what))


def traceparent() -> str | None:
    """The current span as a W3C traceparent; None outside of any."""
    if not trace.get_current_span().get_span_context().is_valid:
        return None
    carrier: dict[str, str] = {}
    propagate.inject(carrier)
    return carrier.get("traceparent")


def trace_labels() -> dict[str, str]:
    """The labels by which a run carries the current trace; none outside of any."""
    current = traceparent()
    return {} if current is None else {LABEL: current}


async def flush() -> None:
    """Let what has ended be exported, where there is an SDK: for processes that end without a word."""
    force_flush = getattr(trace.get_tracer_provider(), "force_flush", None)
    if force_flush is not None:
        await asyncio.to_thread(force_flush, _FLUSH_MILLISECONDS)


def _context(parent: str | None) -> Context | None:
    return propagate.extract({"traceparent": parent}) if parent else None
