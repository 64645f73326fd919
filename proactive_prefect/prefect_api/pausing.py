"""Pause and resume a deployment, as the switch in Prefect's UI does."""

from __future__ import annotations

from .client import PrefectApi
from .deployments import SLUG


async def pause_rule(api: PrefectApi, deployment_id: str) -> None:
    """Pause: Prefect makes no more scheduled runs of it, and deletes those that it had made for the future."""
    await api.post(f"/deployments/{deployment_id}/pause_deployment")


async def resume_rule(api: PrefectApi, deployment_id: str, *, enabled: bool) -> None:
    """Resume; also the rule's schedule, should somebody have switched off only that, unless it is not `enabled`."""
    found = await api.get(f"/deployments/{deployment_id}")
    for schedule in found["schedules"]:
        if enabled and schedule["slug"] == SLUG and not schedule["active"]:
            await api.patch(f"/deployments/{deployment_id}/schedules/{schedule['id']}", {"active": True})
    # Last, since it is this that makes Prefect's scheduler look within seconds.
    await api.post(f"/deployments/{deployment_id}/resume_deployment")
