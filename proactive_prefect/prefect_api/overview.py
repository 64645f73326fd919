"""How the server and its workers do, and what its runs come to, in a request each."""

from __future__ import annotations

from collections.abc import Collection
from datetime import UTC, datetime, timedelta
from typing import Any

from .client import PrefectApi, Refused

_PAGE = 200


async def count_states(api: PrefectApi, deployment_ids: Collection[str], since: datetime) -> dict[str, int]:
    """How many runs that were due between `since` and now are in a state of each name."""
    if not deployment_ids:
        return {}
    now = datetime.now(UTC)
    history = await api.post(
        "/flow_runs/history",
        {
            "history_start": since.isoformat(),
            "history_end": now.isoformat(),
            "history_interval_seconds": max(1.0, (now - since) / timedelta(seconds=1)),
            "flow_runs": {"deployment_id": {"any_": sorted(deployment_ids)}},
        },
    )
    counts: dict[str, int] = {}
    for interval in history:
        for state in interval["states"]:
            counts[state["state_name"]] = counts.get(state["state_name"], 0) + state["count_runs"]
    return counts


async def pool_workers(api: PrefectApi, pool: str) -> list[dict[str, Any]] | None:
    """The workers of a pool, as Prefect knows them (`name`, `status`, `last_heartbeat_time`); None without the pool."""
    try:
        found: list[dict[str, Any]] = await api.post(f"/work_pools/{pool}/workers/filter", {"limit": _PAGE})
    except Refused as refused:
        if refused.status == 404:
            return None
        raise
    return found


async def server_version(api: PrefectApi) -> str:
    """The version of the Prefect server."""
    return str(await api.get("/admin/version"))
