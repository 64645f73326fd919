"""The flow of every skill rule: run a scheduled skill."""

from __future__ import annotations

from typing import Any

from prefect import flow

from proactive_prefect.firing.body import fire


@flow(name="skill", retries=0, persist_result=False, validate_parameters=False, log_prints=False)
async def skill(rule: str, payload: str | None = None) -> Any:
    """Fire one occurrence of the rule that `rule` holds, as JSON text."""
    return await fire(rule, payload)
