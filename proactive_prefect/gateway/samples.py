"""What one gateway counts of itself since its start, by the names of the scheduling runtime's metrics.

Requests are counted by the middleware, by their route. Whoever builds a calendar answer calls `projection.record`;
whoever serves the stream counts with `counts`.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from starlette.types import ASGIApp, Receive, Scope, Send

CounterName = Literal[
    "calendar_events_requests",
    "calendar_action_requests",
    "calendar_change_request_requests",
    "calendar_change_confirm_requests",
    "heartbeat_last_requests",
    "heartbeat_wake_requests",
    "push_replay_requests",
    "push_stream_connects",
    "push_stream_disconnects",
    "push_stream_event_payloads",
    "push_stream_keepalives",
    "push_stream_resyncs",
]
COUNTERS: tuple[CounterName, ...] = get_args(CounterName)

# By the path of the route, with `{}` for each of its parameters. Streams are counted by who serves them.
COUNTED: dict[str, CounterName] = {
    "/api/v1/ops/calendar/events": "calendar_events_requests",
    "/api/v1/ops/calendar/events/{}/action": "calendar_action_requests",
    "/api/v1/ops/calendar/changes": "calendar_change_request_requests",
    "/api/v1/ops/calendar/changes/{}/confirm": "calendar_change_confirm_requests",
    "/api/v1/heartbeat/last": "heartbeat_last_requests",
    "/api/v1/heartbeat/wake": "heartbeat_wake_requests",
    "/api/v1/ops/scheduling/events": "push_replay_requests",
}
_PARAMETER = re.compile(r"\{[^}]*\}")


@dataclass
class ProjectionSamples:
    """Calendar answers that this gateway has built: how many, how long each took, and what was in the last one."""

    builds: int = 0
    duration_ms_last: float = 0.0
    duration_ms_max: float = 0.0
    duration_ms_total: float = 0.0
    events_total: int = 0
    always_running_total: int = 0
    stasis_total: int = 0

    def record(self, seconds: float, *, events: int, always_running: int, stasis: int) -> None:
        """Note one answer: how long it took, its entries, those folded to one row, and those that wait in stasis."""
        milliseconds = seconds * 1000
        self.builds += 1
        self.duration_ms_last = milliseconds
        self.duration_ms_max = max(self.duration_ms_max, milliseconds)
        self.duration_ms_total += milliseconds
        self.events_total, self.always_running_total, self.stasis_total = events, always_running, stasis


@dataclass
class Samples:
    """All of it. `projection_state` gives the state of the calendar's projection, `subscribers` the open streams."""

    counts: Counter[CounterName] = field(default_factory=Counter)
    projection: ProjectionSamples = field(default_factory=ProjectionSamples)
    projection_state: Callable[[], Mapping[str, Any]] = dict
    subscribers: Callable[[], int] = int


class CountRequests:
    """Counts the requests of some routes in `app.state.service.samples`, whatever they are answered with."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await self._app(scope, receive, send)
        finally:
            # FastAPI leaves in the scope which route it found.
            if (route := scope.get("route")) is not None:
                name = COUNTED.get(_PARAMETER.sub("{}", getattr(route, "path", "")))
                if name is not None:
                    scope["app"].state.service.samples.counts[name] += 1
