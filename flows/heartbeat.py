"""The flow of every heartbeat rule: wake up again and again, speak only if there is something to say."""

from __future__ import annotations

from typing import Any

from prefect import flow

from proactive_prefect.firing.body import fire


@flow(name="heartbeat", retries=0, persist_result=False, validate_parameters=False, log_prints=False)
async def heartbeat(rule: str, payload: str | None = None) -> Any:
    """Fire one occurrence of the rule that `rule` holds, as JSON text."""
    return await fire(rule, payload)
