"""Decisions made in processes of their own, at the same time."""

from __future__ import annotations

import asyncio
import multiprocessing
from datetime import UTC, datetime, timedelta
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from prefect.settings import PREFECT_API_URL, temporary_settings

from proactive_prefect.ledger.db import open_ledger
from proactive_prefect.ledger.tables import ResolutionAction
from proactive_prefect.missed.resolve import resolve_missed
from proactive_prefect.prefect_api import connect
from proactive_prefect.settings import Settings

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["tests.missed.deciders", "proactive_prefect.ledger.migrate"])


def start_decider(
    settings: Settings, api_url: str, by: str, action: ResolutionAction, ids: list[int]
) -> tuple[BaseProcess, Connection]:
    """A process that says when it is ready, waits to be told, decides, and sends the ids that it decided."""
    here, there = _CONTEXT.Pipe()
    given = (str(settings.home), settings.database_url, api_url, by, action, ids, there)
    process = _CONTEXT.Process(target=_decide, args=given)
    process.start()
    there.close()
    return process, here


def _decide(home: str, url: str | None, api_url: str, by: str, action: Any, ids: list[int], there: Connection) -> None:
    settings = Settings(home=Path(home), database_url=url, api_patience=1)

    async def run() -> None:
        async with open_ledger(settings) as ledger, connect(settings) as api:
            there.send("ready")
            there.recv()
            target = datetime.now(UTC) + timedelta(hours=1) if action == "reschedule" else None
            found = await resolve_missed(ledger, api, settings, ids, action, by=by, via="cli", target=target)
            there.send([one.occurrence_id for one in found if one.status == "resolved"])

    with temporary_settings({PREFECT_API_URL: api_url}):
        asyncio.run(run())
