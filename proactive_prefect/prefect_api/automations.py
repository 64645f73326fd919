"""Automations that a project has made: told by their tags."""

from __future__ import annotations

from typing import Any

from .client import PrefectApi
from .deployments import TAG

_PAGE = 200


def project_tags(project: str) -> list[str]:
    """The tags of every automation that the project has made."""
    return [TAG, f"project:{project}"]


async def read_automations(api: PrefectApi, project: str) -> list[dict[str, Any]]:
    """The project's automations, as Prefect's JSON."""
    found: list[dict[str, Any]] = []
    while True:
        page = await api.post(
            "/automations/filter",
            {"automations": {"tags": {"all_": project_tags(project)}}, "limit": _PAGE, "offset": len(found)},
        )
        found += page
        if len(page) < _PAGE:
            return found


async def create_automation(api: PrefectApi, body: dict[str, Any]) -> None:
    """Create an automation. One made twice by a repeated call is the next `apply`'s to remove."""
    await api.post("/automations/", body)


async def update_automation(api: PrefectApi, automation_id: str, body: dict[str, Any]) -> None:
    """Put `body` in the place of the automation's definition."""
    await api.call("PUT", f"/automations/{automation_id}", json=body)


async def delete_automation(api: PrefectApi, automation_id: str) -> None:
    """Delete an automation."""
    await api.delete(f"/automations/{automation_id}")
