"""The numbers of the scheduling runtime: as JSON by the names of its design, and for Prometheus.

What the ledger counts is the same from every gateway on it, and survives restarts; what a gateway counts of itself
begins at its start.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from fastapi import APIRouter, Depends, Response
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from pydantic import BaseModel, Field

from ..ledger.depths import Depths, read_depths
from ..ledger.tallies import EVERY, Tallies, read_tallies
from ..rules.models import KINDS
from .access import reader
from .problems import documented
from .prometheus import exposition
from .samples import COUNTERS
from .service import Service, TheService

router = APIRouter(tags=["metrics"], dependencies=[Depends(reader)])


class ProjectionNumbers(BaseModel):
    """The calendar's answers that this gateway built, and how late runs began, by the ledger."""

    builds: int
    duration_ms_last: float
    duration_ms_max: float
    duration_ms_total: float
    duration_ms_avg: float
    events_total: int = Field(description="Entries of the last answer.")
    always_running_total: int = Field(description="Rows of the last answer that stand for an always-running rule.")
    stasis_total: int = Field(description="Missed occurrences that wait for a decision now.")
    due_lag_samples: int = Field(description="Runs whose start was compared with their due time.")
    due_lag_seconds_last: float
    due_lag_seconds_max: float
    due_lag_seconds_total: float
    due_lag_seconds_avg: float


class EventBus(BaseModel):
    """The event log, which all readers follow."""

    seq: int = Field(description="Of the latest event.")
    oldest_seq: int = Field(description="Of the oldest event that is kept.")
    buffered: int = Field(description="Events that can be replayed.")
    emitted_to_prefect: int = Field(description="All events up to this seq have been given to Prefect.")
    subscribers: int = Field(description="Open streams of this gateway.")


class RuntimeMetrics(BaseModel):
    """The scheduling runtime in numbers."""

    started_at: datetime = Field(description="Of this gateway.")
    uptime_seconds: float
    counters: dict[str, int] = Field(
        description="*_requests and push_*: of this gateway since its start; *_events_total and event_emissions_total: "
        "of the ledger since it began."
    )
    event_counts: dict[str, dict[str, int]] = Field(description="Events of the log by source and type.")
    projection: ProjectionNumbers
    event_bus: EventBus
    projection_state: dict[str, Any] = Field(description="How the calendar's projection stands.")


class RuntimeAnswer(BaseModel):
    """Under one key, so that more can stand beside it."""

    metrics: RuntimeMetrics


@router.get("/api/v1/ops/metrics/scheduling-runtime", responses=documented(401))
async def scheduling_runtime(service: TheService) -> RuntimeAnswer:
    """Requests, events, the calendar's projection, the event log, and how late runs begin."""
    now = datetime.now(UTC)
    tallies, depths = await _read(service, now)
    samples, head = service.samples, depths.head
    events = _events(tallies)
    by_source = {source: sum(types.values()) for source, types in events.items()}
    return RuntimeAnswer(
        metrics=RuntimeMetrics(
            started_at=service.started_at,
            uptime_seconds=(now - service.started_at).total_seconds(),
            counters={name: samples.counts[name] for name in COUNTERS}
            | {"event_emissions_total": sum(by_source.values())}
            | {f"{source}_events_total": count for source, count in by_source.items()},
            event_counts=events,
            projection=_projection(service, tallies, depths),
            event_bus=EventBus(
                seq=head.seq,
                oldest_seq=head.oldest,
                buffered=head.seq - head.oldest + 1,
                emitted_to_prefect=head.emitted,
                subscribers=samples.subscribers(),
            ),
            projection_state=dict(samples.projection_state()),
        )
    )


@router.get("/metrics", response_class=Response, responses=documented(401))
async def metrics(service: TheService) -> Response:
    """The numbers in Prometheus' text format."""
    now = datetime.now(UTC)
    tallies, depths = await _read(service, now)
    return Response(exposition(service, tallies, depths, now), media_type=CONTENT_TYPE_PLAIN_0_0_4)


async def _read(service: Service, now: datetime) -> tuple[Tallies, Depths]:
    async with service.ledger.read() as session:
        return await read_tallies(session), await read_depths(session, now)


def _events(tallies: Tallies) -> dict[str, dict[str, int]]:
    found: dict[str, dict[str, int]] = {kind: {} for kind in KINDS}
    for (measure, source, event_type), value in sorted(tallies.items()):
        if measure == "events":
            found.setdefault(source, {})[event_type] = int(value)
    return found


def _projection(service: Service, tallies: Tallies, depths: Depths) -> ProjectionNumbers:
    built = service.samples.projection
    count = sum(tallies.get(("lag", kind, "count"), 0.0) for kind in KINDS)
    total = sum(tallies.get(("lag", kind, "sum"), 0.0) for kind in KINDS)
    return ProjectionNumbers(
        builds=built.builds,
        duration_ms_last=built.duration_ms_last,
        duration_ms_max=built.duration_ms_max,
        duration_ms_total=built.duration_ms_total,
        duration_ms_avg=built.duration_ms_total / built.builds if built.builds else 0.0,
        events_total=built.events_total,
        always_running_total=built.always_running_total,
        stasis_total=sum(depths.missed.values()),
        due_lag_samples=int(count),
        due_lag_seconds_last=tallies.get(("lag", EVERY, "last"), 0.0),
        due_lag_seconds_max=tallies.get(("lag", EVERY, "max"), 0.0),
        due_lag_seconds_total=total,
        due_lag_seconds_avg=total / count if count else 0.0,
    )
