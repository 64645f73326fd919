"""Writers in processes of their own, forked from one that has imported everything, so that they start at once."""

from __future__ import annotations

import asyncio
import itertools
import multiprocessing
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from proactive_prefect.ledger.db import open_ledger
from proactive_prefect.ledger.log import append
from proactive_prefect.settings import Settings

from .histories import an_event

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["tests.ledger.writers", "proactive_prefect.ledger.migrate"])


def start_writer(settings: Settings, name: str, count: int | None = None) -> tuple[BaseProcess, Connection]:
    """A process that opens the ledger and writes `count` transactions (None: for ever); it tells of each commit."""
    here, there = _CONTEXT.Pipe(duplex=False)
    process = _CONTEXT.Process(target=_write, args=(str(settings.home), settings.database_url, name, count, there))
    process.start()
    there.close()
    return process, here


def committed(told: Connection) -> list[int]:
    """The numbers that a writer told of, until it ended."""
    numbers: list[int] = []
    try:
        while True:
            numbers.append(told.recv())
    except EOFError:
        return numbers


def _write(home: str, url: str | None, name: str, count: int | None, there: Any) -> None:
    asyncio.run(_run(Settings(home=Path(home), database_url=url), name, count, there))


async def _run(settings: Settings, name: str, count: int | None, there: Any) -> None:
    # Of every three facts in a transaction, two are facts that other writers log too.
    async with open_ledger(settings) as ledger:
        for number in itertools.count() if count is None else range(count):
            keys = [f"shared-{number}", f"{name}-{number}", f"shared-{number + 1}"]
            async with ledger.write() as session:
                await append(session, [an_event(key) for key in keys])
            there.send(number)
