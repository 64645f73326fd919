"""What `proactive doctor` asks of a Prefect server: does it schedule, are slots leaked, where does it keep leases."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

from .client import PrefectApi, Refused
from .deployments import read_deployments

PROBE_FLOW = "proactive-doctor"
_STALE = timedelta(minutes=10)
_CLAIMED = ("PENDING", "RUNNING", "CANCELLING")


async def time_to_schedule(api: PrefectApi, patience: float) -> float | None:
    """Prove that the server's scheduler works: the seconds until it made a run for a schedule that is new.

    None if it made none within `patience` seconds. The deployment for it is in no work pool, so that nothing ever
    runs, and is deleted again, as are those that a killed check left.
    """
    await _sweep(api, older_than=_STALE)
    flow = await api.post("/flows/", {"name": PROBE_FLOW, "tags": [PROBE_FLOW]})
    schedule = {"interval": 86400.0, "anchor_date": datetime.now(UTC).isoformat(), "timezone": "UTC"}
    body = {
        "name": f"check-{uuid4().hex[:12]}",
        "flow_id": flow["id"],
        "description": "Made by `proactive doctor` to see whether schedules fire; deleted again within minutes.",
        "tags": [PROBE_FLOW],
        "labels": {"proactive.doctor": "probe"},
        "schedules": [{"schedule": schedule, "active": True}],
    }
    began = time.monotonic()
    probe = await api.post("/deployments/", body)
    try:
        filters = {"deployments": {"id": {"any_": [probe["id"]]}}}
        while time.monotonic() - began < patience:
            if await api.post("/flow_runs/count", filters):
                return time.monotonic() - began
            await asyncio.sleep(0.5)
        return None
    finally:
        await api.delete(f"/deployments/{probe['id']}")
        await _sweep(api, older_than=_STALE)


async def _sweep(api: PrefectApi, *, older_than: timedelta) -> None:
    """Delete the probes of checks that were killed, and the flow when nobody uses it any more."""
    there = await api.post("/deployments/filter", {"flows": {"name": {"any_": [PROBE_FLOW]}}})
    before = datetime.now(UTC) - older_than
    stale = [one for one in there if datetime.fromisoformat(one["created"]) < before]
    for one in stale:
        await api.delete(f"/deployments/{one['id']}")
    if len(stale) == len(there):
        for flow in await api.post("/flows/filter", {"flows": {"name": {"any_": [PROBE_FLOW]}}}):
            await api.delete(f"/flows/{flow['id']}")


@dataclass(frozen=True)
class Leak:
    """A rule's concurrency limit with more slots taken than runs that could have taken them."""

    rule: str
    limit_id: str
    limit: int
    taken: int
    claimed: int


async def leaked_slots(api: PrefectApi, *, look_again: float = 2.0) -> list[Leak]:
    """The rules' limits from which slots have leaked; seen twice, since a run may be between two states."""
    first = await _surplus(api)
    if not first:
        return []
    await asyncio.sleep(look_again)
    again = {leak.limit_id: leak for leak in await _surplus(api)}
    return [again[leak.limit_id] for leak in first if leak.limit_id in again]


async def free_slots(api: PrefectApi, leak: Leak) -> None:
    """Give back the leaked slots of one limit."""
    await api.patch(f"/v2/concurrency_limits/{leak.limit_id}", {"active_slots": leak.claimed})


async def _surplus(api: PrefectApi) -> list[Leak]:
    limits = {
        found.data["global_concurrency_limit"]["id"]: found
        for found in await read_deployments(api)
        if found.is_a_rule and found.data.get("global_concurrency_limit")
    }
    leaks = []
    for limit in await _all_limits(api):
        found = limits.get(limit["id"])
        if found is None or limit["active_slots"] <= 0:
            continue
        runs = {"state": {"type": {"any_": list(_CLAIMED)}}}
        claimed = await api.post("/flow_runs/count", {"deployments": {"id": {"any_": [found.id]}}, "flow_runs": runs})
        if limit["active_slots"] > claimed:
            leaks.append(Leak(found.name, limit["id"], limit["limit"], limit["active_slots"], claimed))
    return leaks


async def _all_limits(api: PrefectApi) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    while True:
        page = await api.post("/v2/concurrency_limits/filter", {"limit": 200, "offset": len(found)})
        found += page
        if len(page) < 200:
            return found


async def lease_storage(api: PrefectApi) -> str | None:
    """The module in which the server keeps concurrency leases; None where it does not tell (Prefect Cloud)."""
    try:
        settings = await api.get("/admin/settings")
    except Refused:
        return None
    try:
        return str(settings["server"]["concurrency"]["lease_storage"])
    except (KeyError, TypeError):
        return None
