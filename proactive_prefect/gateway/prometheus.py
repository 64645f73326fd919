"""The numbers for Prometheus. One table says every name; labels are few by nature: kinds, outcomes, event types.

`proactive_ledger_*` is of the ledger: every gateway on it tells the same, so take `max by (…)` of several gateways, not
their sum. `proactive_gateway_*` is of the one gateway that is asked, since its start: sum those.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime

from prometheus_client import CollectorRegistry, Metric, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector

from ..ledger.depths import Depths
from ..ledger.tallies import DURATION_BUCKETS, LAG_BUCKETS, OVER, Tallies
from ..rules.models import KINDS
from .samples import COUNTERS
from .service import Service

NAMES: dict[str, str] = {
    "proactive_ledger_outcomes": "Occurrences that came to an outcome; one that was missed and then ran, under both.",
    "proactive_ledger_events": "Entries of the event log.",
    "proactive_ledger_start_lag_seconds": "From an occurrence's due time to the start of its run.",
    "proactive_ledger_run_duration_seconds": "From the start of a run to its end.",
    "proactive_ledger_missed": "Missed occurrences that wait for somebody to decide.",
    "proactive_ledger_due": "Occurrences that are due and have not started.",
    "proactive_ledger_running": "Occurrences whose run is at work.",
    "proactive_ledger_oldest_due_seconds": "How long the oldest of those that have not started is due.",
    "proactive_ledger_deliveries_waiting": "Accepted webhook calls that have no run yet.",
    "proactive_ledger_unemitted_events": "Entries of the event log that Prefect has not been given yet.",
    "proactive_ledger_reconciled_seconds": "Since when the account has not been compared with Prefect's runs.",
    "proactive_gateway_uptime_seconds": "Since the start of this gateway.",
    "proactive_gateway_ready": "1 while Prefect answers this gateway and its webhooks are known.",
    "proactive_gateway_webhook_calls": "Webhook calls, by what became of them; `refused` are all that got a 401.",
    "proactive_gateway_runtime": "Requests and pushed messages of the scheduling runtime, by name.",
    "proactive_gateway_streams": "Open streams.",
    "proactive_gateway_calendar_build_seconds": "Time spent on calendar answers.",
    "proactive_gateway_calendar_builds": "Calendar answers built.",
}


def exposition(service: Service, tallies: Tallies, depths: Depths, now: datetime) -> bytes:
    """All numbers at `now`, in the text format."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Given([*_of_ledger(tallies, depths, now), *_of_gateway(service, now)]))
    return generate_latest(registry)


class _Given(Collector):
    """Metrics that have been read already."""

    def __init__(self, metrics: Sequence[Metric]) -> None:
        self._metrics = metrics

    def collect(self) -> Iterable[Metric]:
        return self._metrics


def _of_ledger(tallies: Tallies, depths: Depths, now: datetime) -> Iterator[Metric]:
    outcomes = _counter("proactive_ledger_outcomes", "kind", "outcome")
    events = _counter("proactive_ledger_events", "source", "event_type")
    for (measure, kind, label), value in sorted(tallies.items()):
        if measure in ("outcomes", "events"):
            (outcomes if measure == "outcomes" else events).add_metric([kind, label], value)
    yield outcomes
    yield events
    yield _histogram("proactive_ledger_start_lag_seconds", "lag", LAG_BUCKETS, tallies)
    yield _histogram("proactive_ledger_run_duration_seconds", "duration", DURATION_BUCKETS, tallies)
    for name, counts in (("missed", depths.missed), ("due", depths.due), ("running", depths.running)):
        gauge = _gauge(f"proactive_ledger_{name}", "kind")
        for kind in KINDS:  # a zero is told too: what is absent cannot be alerted on
            gauge.add_metric([kind], counts[kind])
        yield gauge
    yield _value("proactive_ledger_oldest_due_seconds", _age(depths.oldest_due, now))
    yield _value("proactive_ledger_deliveries_waiting", depths.deliveries)
    yield _value("proactive_ledger_unemitted_events", depths.head.seq - depths.head.emitted)
    yield _value(
        "proactive_ledger_reconciled_seconds", _age(depths.reconciled, now) if depths.reconciled else float("inf")
    )


def _of_gateway(service: Service, now: datetime) -> Iterator[Metric]:
    samples = service.samples
    yield _value("proactive_gateway_uptime_seconds", _age(service.started_at, now))
    yield _value("proactive_gateway_ready", float(service.doors.ready))
    calls = _counter("proactive_gateway_webhook_calls", "result")
    totals = {"refused": service.refused}
    for counted in service.counters.values():
        for result, count in counted.items():
            totals[result] = totals.get(result, 0) + count
    for result, count in sorted(totals.items()):
        calls.add_metric([result], count)
    yield calls
    runtime = _counter("proactive_gateway_runtime", "name")
    for counter_name in COUNTERS:
        runtime.add_metric([counter_name], samples.counts[counter_name])
    yield runtime
    yield _value("proactive_gateway_streams", samples.subscribers())
    for name, value in (
        ("proactive_gateway_calendar_build_seconds", samples.projection.duration_ms_total / 1000),
        ("proactive_gateway_calendar_builds", samples.projection.builds),
    ):
        counter = _counter(name)
        counter.add_metric([], value)
        yield counter


def _histogram(name: str, measure: str, bounds: Sequence[float], tallies: Tallies) -> HistogramMetricFamily:
    family = HistogramMetricFamily(name, NAMES[name], labels=["kind"])
    for kind in KINDS:
        total, buckets = 0.0, []
        for bound in bounds:
            total += tallies.get((measure, kind, f"{bound:g}"), 0.0)
            buckets.append((str(bound), total))
        total += tallies.get((measure, kind, OVER), 0.0)
        family.add_metric([kind], [*buckets, ("+Inf", total)], tallies.get((measure, kind, "sum"), 0.0))
    return family


def _counter(name: str, *labels: str) -> CounterMetricFamily:
    return CounterMetricFamily(name, NAMES[name], labels=labels)


def _gauge(name: str, *labels: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, NAMES[name], labels=labels)


def _value(name: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, NAMES[name], value=value)


def _age(since: datetime | None, now: datetime) -> float:
    return max(0.0, (now - since.astimezone(UTC)).total_seconds()) if since else 0.0
