"""Addresses in Prefect's own UI."""

from __future__ import annotations

from urllib.parse import urlsplit, urlunsplit

from prefect.utilities.urls import url_for


def run_url(run_id: str) -> str | None:
    """Where Prefect's UI shows a flow run; None if Prefect's settings name no UI (`PREFECT_UI_URL`)."""
    return without_userinfo(url_for("flow-run", obj_id=run_id) or "") or None


def ui_url() -> str | None:
    """Where Prefect's UI is; None as above."""
    page = run_url("x")
    return page.removesuffix("/runs/flow-run/x") if page else None


def deployment_url(deployment_id: str) -> str | None:
    """Where Prefect's UI shows a deployment; None as above."""
    return without_userinfo(url_for("deployment", obj_id=deployment_id) or "") or None


def without_userinfo(url: str) -> str:
    """The address without the name and password that `PREFECT_API_URL` may hold: it is shown to others."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2])) if "@" in parts.netloc else url
