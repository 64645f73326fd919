"""Missed runs in Prefect."""

from __future__ import annotations

from uuid import uuid4

from proactive_prefect.prefect_api import connect
from proactive_prefect.prefect_api.missed import resume_run

from ..conftest import Server


async def test_a_run_that_is_gone_is_not_resumed(prefect_server: Server) -> None:
    """Prefect answers 500 to that, for ever; nobody waits for it."""
    async with connect() as api:
        assert not await resume_run(api, uuid4())
