"""Deliveries for the inbox's tests, and processes that accept them."""

from __future__ import annotations

import asyncio
import itertools
import json
import multiprocessing
from datetime import UTC, datetime, timedelta
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from proactive_prefect.ledger.db import open_ledger
from proactive_prefect.ledger.deliveries import Row, new_id
from proactive_prefect.settings import Settings
from proactive_prefect.webhooks.inbox import Inbox

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["tests.webhooks.calls", "proactive_prefect.ledger.migrate"])


def a_call(delivery_id: str, rule_id: str = "hook", **more: Any) -> Row:
    """A delivery as the gateway makes it of a verified call."""
    now = datetime.now(UTC)
    payload = json.dumps({"n": delivery_id})
    row: Row = {"id": new_id(now), "rule_id": rule_id, "delivery_id": delivery_id, "received_at": now}
    return {**row, "headers": "{}", "payload": payload, "reason": "", **more}


def anybodys(delivery_id: str, **more: Any) -> Row:
    """A delivery that no gateway holds, due since a second ago."""
    return a_call(delivery_id, **{"due_at": datetime.now(UTC) - timedelta(seconds=1), **more})


def start_gateway(settings: Settings, name: str) -> tuple[BaseProcess, Connection]:
    """A process that accepts deliveries for ever, eight at a time, and tells of each that it answered."""
    here, there = _CONTEXT.Pipe(duplex=False)
    process = _CONTEXT.Process(target=_accept, args=(str(settings.home), settings.database_url, name, there))
    process.start()
    there.close()
    return process, here


def _accept(home: str, url: str | None, name: str, there: Any) -> None:
    asyncio.run(_accept_all(Settings(home=Path(home), database_url=url), name, there))


async def _accept_all(settings: Settings, name: str, there: Any) -> None:
    numbers = itertools.count()
    async with open_ledger(settings) as ledger:
        inbox = Inbox(ledger)

        async def call() -> None:
            while True:
                number = next(numbers)
                receipt = await inbox.accept(a_call(f"{name}-{number}"))
                there.send(receipt.delivery.delivery_id)

        await asyncio.gather(*(call() for _ in range(8)))
