"""Prefect's event stream: what it tells about runs and deployments, and events of our own given to it.

The stream is fast and not complete: it goes back 15 minutes at most, tells nothing of the runs that Prefect's scheduler
makes, and can lose an event. So whoever listens must look at the runs themselves too (`changes.py`). The id of a
state's event is the id of the state, so both ways tell of the same thing by the same name.
"""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from prefect.events import Event
from prefect.events.clients import get_events_subscriber
from prefect.events.filters import EventFilter, EventNameFilter

from ..rules.models import KINDS
from .client import PrefectApi

_RUN = "prefect.flow-run."
_DEPLOYMENT = "prefect.deployment."
_NOISE = ["prefect.flow-run.heartbeat"]


@dataclass(frozen=True)
class StateChange:
    """A flow run came into a state. `before` is the name of the state that it left, None for its first."""

    run_id: str
    state_id: str
    type: str
    name: str
    message: str
    at: datetime
    before: str | None


@dataclass(frozen=True)
class DeploymentChange:
    """A deployment was created, changed or deleted."""

    deployment_id: str


@dataclass(frozen=True)
class Connected:
    """The stream is open: all that happens from here on is told, what happened before may not be."""


async def listen() -> AsyncIterator[Connected | StateChange | DeploymentChange]:
    """What the stream tells, over one connection: first `Connected`; what was told in the last minute comes again.

    Ends when the connection does, or raises whatever the connection raised.
    """
    wanted = EventFilter(event=EventNameFilter(prefix=[_RUN, _DEPLOYMENT], exclude_name=_NOISE))
    async with get_events_subscriber(filter=wanted, reconnection_attempts=0) as subscriber:
        yield Connected()
        async for event in subscriber:
            if (change := _change(event)) is not None:
                yield change


async def give_events(api: PrefectApi, events: Iterable[dict[str, Any]]) -> None:
    """Give events to Prefect. One given twice is stored once, by its id. Raises Refused, PrefectUnreachable."""
    await api.post("/events", list(events))


def our_event(
    *,
    event_id: str,
    event_type: str,
    occurred: datetime,
    rule_id: str,
    kind: str,
    run_id: str | None,
    payload: dict[str, Any],
) -> dict[str, Any]:
    """An event of ours as Prefect takes it: `proactive.<event_type>`, about the rule, related to its run.

    `event_id` is any text that names it; the id that Prefect stores it by is always the same for the same text.
    """
    related = [
        {"prefect.resource.id": f"prefect.tag.{tag}", "prefect.resource.role": "tag"} for tag in ("proactive", kind)
    ]
    if run_id is not None:
        related.append({"prefect.resource.id": f"{_RUN}{run_id}", "prefect.resource.role": "flow-run"})
    return {
        "id": str(uuid.uuid5(uuid.NAMESPACE_OID, event_id)),
        "event": f"proactive.{event_type}",
        "occurred": occurred.isoformat(),
        "resource": {
            "prefect.resource.id": f"proactive.rule.{rule_id}",
            "prefect.resource.name": rule_id,
            "proactive.kind": kind,
        },
        "related": related,
        "payload": payload,
    }


def _change(event: Event) -> StateChange | DeploymentChange | None:
    resource = event.resource
    if event.event.startswith(_DEPLOYMENT):
        return DeploymentChange(resource.id.removeprefix(_DEPLOYMENT))
    flow = event.resource_in_role.get("flow")
    if "prefect.state-type" not in resource or flow is None or flow.name not in KINDS:
        return None
    stamp = resource.get("prefect.state-timestamp")
    return StateChange(
        run_id=resource.id.removeprefix(_RUN),
        state_id=str(event.id),
        type=resource["prefect.state-type"],
        name=resource.get("prefect.state-name") or "",
        message=resource.get("prefect.state-message") or "",
        at=datetime.fromisoformat(stamp) if stamp else event.occurred,
        before=(event.payload.get("initial_state") or {}).get("name"),
    )
