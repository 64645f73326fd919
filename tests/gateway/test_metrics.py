"""The gateway's numbers: the scheduling runtime's as JSON, all of them for Prometheus. Prefect is away here."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI
from prefect.settings import PREFECT_API_URL, temporary_settings
from prometheus_client.parser import text_string_to_metric_families

from proactive_prefect.gateway.app import create_app
from proactive_prefect.gateway.delivery import Call, row_of
from proactive_prefect.gateway.doors import Door
from proactive_prefect.gateway.prometheus import NAMES
from proactive_prefect.gateway.secrets import read_token
from proactive_prefect.gateway.service import Service
from proactive_prefect.ledger.occurrences import apply
from proactive_prefect.rules.models import WebhookRule
from proactive_prefect.settings import Settings
from proactive_prefect.tracing import LABEL, span, traceparent
from proactive_prefect.webhooks.newrun import new_run
from tests.ledger.histories import LONG_AGO, a_run, story
from tests.support import free_port
from tests.tracing import Spans, spans

__all__ = ["spans"]

ROOT = Path(__file__).parents[2]
RUNTIME = "/api/v1/ops/metrics/scheduling-runtime"


@asynccontextmanager
async def serving(settings: Settings) -> AsyncIterator[tuple[FastAPI, httpx.AsyncClient]]:
    """A gateway in this process, and its operator."""
    app = create_app(settings)
    headers = {"Authorization": f"Bearer {settings.token}"}
    transport = httpx.ASGITransport(app=app)
    with temporary_settings({PREFECT_API_URL: f"http://127.0.0.1:{free_port()}/api"}):
        async with (
            app.router.lifespan_context(app),
            httpx.AsyncClient(transport=transport, base_url="http://gateway", headers=headers) as client,
        ):
            yield app, client


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path / "home", token="operator-token", api_patience=1)


async def _ran(service: Service, *names: str, state: str = "COMPLETED/Completed") -> None:
    for name in names:
        run = a_run(name, rule_id=name, kind="cron")
        async with service.ledger.write() as session:
            facts = story(run, "SCHEDULED/Scheduled", "RUNNING/Running", state)
            await apply(session, run, facts, log_since=LONG_AGO)


def _samples(text: str) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


async def test_the_shape_of_the_runtime_metrics(settings: Settings) -> None:
    """Every name of the design is there from the start, as a number."""
    async with serving(settings) as (_, client):
        found = (await client.get(RUNTIME)).json()["metrics"]
    assert found.keys() >= {"started_at", "uptime_seconds", "counters", "event_counts", "projection"}
    counters = [
        "calendar_events",
        "calendar_action",
        "calendar_change_request",
        "calendar_change_confirm",
        "heartbeat_last",
    ]
    names = {f"{name}_requests" for name in [*counters, "heartbeat_wake", "push_replay"]}
    names |= {f"push_stream_{name}" for name in ("connects", "disconnects", "event_payloads", "keepalives")}
    names |= {"event_emissions_total", "cron_events_total", "heartbeat_events_total"}
    assert names <= found["counters"].keys()
    assert found["event_counts"].keys() >= {"cron", "heartbeat"}
    timed = {f"duration_ms_{part}" for part in ("last", "max", "total", "avg")}
    lags = {f"due_lag_seconds_{part}" for part in ("last", "max", "total", "avg")}
    more = {"builds", "events_total", "always_running_total", "stasis_total", "due_lag_samples"}
    assert found["projection"].keys() == timed | lags | more
    assert found["event_bus"]["seq"] == 0


async def test_due_lag_and_events_are_those_of_the_ledger(settings: Settings) -> None:
    """What ran is measured from its due time to its start; a restart, or another gateway, changes nothing."""
    async with serving(settings) as (app, client):
        await _ran(app.state.service, "a", "b")
        first = (await client.get(RUNTIME)).json()["metrics"]
    async with serving(settings) as (_, client):
        again = (await client.get(RUNTIME)).json()["metrics"]
    for found in (first, again):
        assert found["projection"]["due_lag_samples"] == 2
        assert found["projection"]["due_lag_seconds_avg"] == 1.0
        assert found["event_counts"]["cron"] == {
            "cron_run_completed": 2,
            "cron_run_scheduled": 2,
            "cron_run_started": 2,
        }
        assert found["counters"]["cron_events_total"] == found["counters"]["event_emissions_total"] == 6
        assert found["event_bus"]["seq"] == found["event_bus"]["buffered"] == 6


async def test_prometheus_reads_all_of_it(settings: Settings) -> None:
    """The text parses; histograms add up; every family of the table is there; no rule is named."""
    async with serving(settings) as (app, client):
        await _ran(app.state.service, "my-secret-rule", "other-rule")
        await _ran(app.state.service, "third", state="FAILED/Failed")
        answer = await client.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    found = _samples(answer.text)
    assert found["proactive_ledger_outcomes_total", (("kind", "cron"), ("outcome", "completed"))] == 2
    assert found["proactive_ledger_outcomes_total", (("kind", "cron"), ("outcome", "failed"))] == 1
    assert found["proactive_ledger_start_lag_seconds_bucket", (("kind", "cron"), ("le", "0.5"))] == 0
    assert found["proactive_ledger_start_lag_seconds_bucket", (("kind", "cron"), ("le", "1.0"))] == 3
    assert found["proactive_ledger_start_lag_seconds_bucket", (("kind", "cron"), ("le", "+Inf"))] == 3
    assert found["proactive_ledger_start_lag_seconds_sum", (("kind", "cron"),)] == 3.0
    assert found["proactive_ledger_missed", (("kind", "heartbeat"),)] == 0
    assert found["proactive_gateway_ready", ()] == 0
    families = {family.name: family.type for family in text_string_to_metric_families(answer.text)}
    assert families.keys() == NAMES.keys()
    page = (ROOT / "docs/how-to/metrics.md").read_text()
    missing = [name for name, kind in families.items() if f"`{name}{'_total' * (kind == 'counter')}`" not in page]
    assert missing == []
    assert "my-secret-rule" not in answer.text


async def test_numbers_want_a_token_and_a_reader_may_see_them(settings: Settings) -> None:
    """401 without one; the read token is enough."""
    async with serving(settings) as (_, client):
        for path in (RUNTIME, "/metrics"):
            assert (await client.get(path, headers={"Authorization": "Bearer wrong"})).status_code == 401
            reader = {"Authorization": f"Bearer {read_token(settings)}"}
            assert (await client.get(path, headers=reader)).status_code == 200


async def test_a_call_carries_its_trace_into_the_inbox(settings: Settings, spans: Spans) -> None:
    """The delivery keeps the trace of the call, and the run that is made of it goes on with it."""
    rule = WebhookRule.model_validate({"id": "traced", "action": {"type": "command", "argv": ["true"]}})
    door = Door(rule, "deployment", paused=False, secrets=(), closed=None)
    with span("webhook", attributes={}):
        told = traceparent()
        row = row_of(door, Call("d1", {}, b"{}", {}, "{}"))
    assert told is not None
    async with serving(settings) as (app, client):
        inbox = app.state.service.inbox
        receipt = await inbox.accept(row)
        assert receipt.delivery.traceparent == told
        assert new_run(rule, receipt.delivery, None).body()["labels"][LABEL] == told
        found = _samples((await client.get("/metrics")).text)
    assert found["proactive_ledger_deliveries_waiting", ()] == 1
