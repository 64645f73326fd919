"""Addresses in Prefect's own UI."""

from __future__ import annotations

from prefect.utilities.urls import url_for


def run_url(run_id: str) -> str | None:
    """Where Prefect's UI shows a flow run; None if Prefect's settings name no UI (`PREFECT_UI_URL`)."""
    return url_for("flow-run", obj_id=run_id) or None


def ui_url() -> str | None:
    """Where Prefect's UI is; None as above."""
    page = run_url("x")
    return page.removesuffix("/runs/flow-run/x") if page else None


def deployment_url(deployment_id: str) -> str | None:
    """Where Prefect's UI shows a deployment; None as above."""
    return url_for("deployment", obj_id=deployment_id) or None
