"""What became of the runs of deployments, for people to look at: a few requests for many rules."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any
from uuid import UUID

from .client import PrefectApi

_PAGE = 200
Run = dict[str, Any]
LIVE = ("PENDING", "RUNNING", "CANCELLING", "PAUSED")
ENDED = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")


async def last_runs(api: PrefectApi, deployment_ids: Sequence[str]) -> dict[str, Run]:
    """The run that ended last of each deployment, by deployment id; none for one whose runs never ended."""
    found = await runs_of(api, deployment_ids, types=ENDED)
    last: dict[str, Run] = {}
    for run in found:
        last.setdefault(run["deployment_id"], run)
    if len(found) == _PAGE:  # busy rules filled the page: ask for the others one by one
        rest = [deployment_id for deployment_id in deployment_ids if deployment_id not in last]
        for answer in await asyncio.gather(*(runs_of(api, [one], types=ENDED, limit=1) for one in rest)):
            last.update({run["deployment_id"]: run for run in answer})
    return last


async def runs_at_work(api: PrefectApi, deployment_ids: Sequence[str]) -> dict[str, Run]:
    """The run of each deployment that is at work, by deployment id; the oldest, if there are several."""
    found = await runs_of(api, deployment_ids, types=("RUNNING", "CANCELLING"))
    return {run["deployment_id"]: run for run in found}  # the latest come first


async def open_runs(api: PrefectApi, deployment_ids: Sequence[str], text: str) -> list[Run]:
    """Runs that wait or work and whose id or name is or begins with `text`.

    By the beginning of an id those that work are found, and of those that wait the 200 that are due first.
    """
    if not deployment_ids:
        return []

    async def ask(types: Sequence[str], **more: Any) -> list[Run]:
        found: list[Run] = await api.post(
            "/flow_runs/filter",
            {
                "deployments": {"id": {"any_": list(deployment_ids)}},
                "flow_runs": {"state": {"type": {"any_": list(types)}}, **more},
                "sort": "EXPECTED_START_TIME_ASC",
                "limit": _PAGE,
            },
        )
        return found

    asked = [ask(LIVE), ask(("SCHEDULED",)), ask(("SCHEDULED",), name={"like_": text})]
    if _is_id(text):
        asked.append(ask(("SCHEDULED",), id={"any_": [text]}))
    runs = {run["id"]: run for answer in await asyncio.gather(*asked) for run in answer}
    return [run for run in runs.values() if run["id"].startswith(text) or run["name"].startswith(text)]


def _is_id(text: str) -> bool:
    try:
        return str(UUID(text)) == text
    except ValueError:
        return False


async def runs_of(
    api: PrefectApi, deployment_ids: Sequence[str], *, types: Sequence[str] | None = None, limit: int = _PAGE
) -> list[Run]:
    """Runs of the deployments (Prefect's JSON), the latest first, at most 200; of the state `types` only, if given."""
    if not deployment_ids:
        return []
    runs: dict[str, Any] = {"state": {"type": {"any_": list(types)}}} if types else {}
    ended = types == ENDED
    if ended:
        runs["end_time"] = {"is_null_": False}
    found: list[Run] = await api.post(
        "/flow_runs/filter",
        {
            "deployments": {"id": {"any_": list(deployment_ids)}},
            "flow_runs": runs,
            "sort": "END_TIME_DESC" if ended else "EXPECTED_START_TIME_DESC",
            "limit": min(limit, _PAGE),
        },
    )
    return found
