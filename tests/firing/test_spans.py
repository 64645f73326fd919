"""The spans of runs of a real server, executed by Prefect's engine in this process."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from opentelemetry.trace import SpanKind, StatusCode

from proactive_prefect.firing.pregate import pregate
from proactive_prefect.prefect_api.deployments import deployed_rules
from proactive_prefect.tracing import span

from ..conftest import Server
from ..tracing import Spans, spans
from .stock import StockProject, make_folder, stock_project

__all__ = ["spans"]


@pytest.fixture
async def stock(prefect_server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[StockProject]:
    """A project whose runs are executed here."""
    make_folder(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    async with stock_project(prefect_server, tmp_path, f"pool-{tmp_path.name}"[:60]) as project:
        yield project


async def test_a_trace_goes_from_the_call_to_the_outcome(stock: StockProject, spans: Spans) -> None:
    """The run that a call made is below the call's span: gate and action, with rule, owner, run and outcome."""
    action = {"type": "python", "call": "stock_actions:say_async"}
    await stock.apply({"id": "traced", "action": action, "owner": "ada"})
    with span("webhook", kind=SpanKind.SERVER, attributes={}):
        run = await stock.trigger("traced", cause="webhook", payload='"my-secret"')
    await stock.execute(run)
    [call], [ran], [gate], [acted] = (spans.named(name) for name in ("webhook", "run", "gate", "action"))
    assert call.context is not None
    assert ran.context is not None
    assert {one.context.trace_id for one in (ran, gate, acted) if one.context} == {call.context.trace_id}
    assert [one.parent.span_id for one in (gate, acted) if one.parent] == [ran.context.span_id] * 2
    told = dict(ran.attributes or {})
    assert told["proactive.rule.id"] == "traced"
    assert told["proactive.owner"] == "ada"
    assert told["proactive.run.id"] == str(run.id)
    assert told["proactive.cause"] == "webhook"
    assert told["proactive.outcome"] == "Completed"
    assert float(str(told["proactive.start_lag_seconds"])) >= 0
    assert "my-secret" not in "".join(one.to_json() for one in spans.all())


async def test_a_failed_and_a_skipped_run_say_so(stock: StockProject, spans: Spans) -> None:
    """A failure marks the span and counts attempts; a skip gives its code and is no error."""
    failing = {"type": "python", "call": "stock_actions:fail"}
    await stock.apply(
        {"id": "fails", "action": failing, "retries": 1, "retry_delay": "0s"},
        {"id": "off", "action": failing, "enabled": False},
    )
    await stock.fire("fails")
    [failed], [acted] = spans.named("run"), spans.named("action")
    assert failed.status.status_code is acted.status.status_code is StatusCode.ERROR
    assert (acted.attributes or {})["proactive.attempts"] == 2
    await stock.fire("off")
    skipped = spans.named("run")[-1]
    assert (skipped.attributes or {})["proactive.skip.code"] == "disabled"
    assert skipped.status.status_code is StatusCode.UNSET


async def test_what_the_worker_settles_has_a_span_too(stock: StockProject, spans: Spans) -> None:
    """An occurrence that starts no process, because it is missed, is a span with that outcome."""
    action = {"type": "python", "call": "stock_actions:quiet_async"}
    await stock.apply({"kind": "heartbeat", "id": "late", "every": "9d", "action": action})
    due = datetime.now(UTC).replace(microsecond=0) - timedelta(hours=1)
    run = await stock.make_scheduled("late", due)
    rule = next(found.rule for found in await deployed_rules(stock.api) if found.rule.id == "late")
    assert await pregate(stock.api, run, rule)
    [held] = spans.named("run")
    assert (held.attributes or {})["proactive.outcome"] == "Missed"
    assert (held.attributes or {})["proactive.due"] == due.isoformat()
