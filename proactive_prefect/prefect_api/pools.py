"""Work pools and their queues: created where they are missing, never altered where they are there."""

from __future__ import annotations

from collections.abc import Iterable

from prefect.workers.utilities import get_default_base_job_template_for_infrastructure_type

from .client import PrefectApi, Refused

# By priority; Prefect's workers take from the queue with the lowest number first. "default" comes with the pool.
QUEUES = {"high": 1, "default": 2, "low": 3}


async def read_queues(api: PrefectApi, pools: Iterable[str]) -> dict[str, set[str]]:
    """The names of the queues of each of `pools` that exists."""
    wanted = sorted(set(pools))
    found = await api.post("/work_pools/filter", {"work_pools": {"name": {"any_": wanted}}})
    queues = [api.post(f"/work_pools/{pool['name']}/queues/filter", {}) for pool in found]
    return {pool["name"]: {queue["name"] for queue in await answer} for pool, answer in zip(found, queues, strict=True)}


async def create_pool(api: PrefectApi, name: str, type: str) -> None:  # noqa: A002 - Prefect's word
    """Create a work pool of this type with all `QUEUES`, and the type's own job template.

    A pool of that name is left as it is.
    """
    template = await get_default_base_job_template_for_infrastructure_type(type)
    body = {"name": name, "type": type, "description": "Runs the rules of proactive-prefect."}
    try:
        await api.post("/work_pools/", body | ({"base_job_template": template} if template else {}))
    except Refused as refused:
        if refused.status != 409:
            raise
    for queue in QUEUES:
        await create_queue(api, name, queue)


async def create_queue(api: PrefectApi, pool: str, name: str) -> None:
    """Create a queue of `QUEUES` in the pool. One of that name is left as it is."""
    try:
        await api.post(f"/work_pools/{pool}/queues/", {"name": name, "priority": QUEUES[name]})
    except Refused as refused:
        if refused.status != 409:
            raise
