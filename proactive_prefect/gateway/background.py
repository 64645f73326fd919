"""What a gateway does beside answering: each work in a task of its own, from its start to its end."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Coroutine, Mapping
from typing import Any

log = logging.getLogger("proactive.gateway")

# How long the works have, once they are told to stop, for their last writes.
LAST_SECONDS = 2.0

Work = Coroutine[Any, Any, None]


@contextlib.asynccontextmanager
async def at_work(stop: asyncio.Event, watches: Mapping[str, Work], works: Mapping[str, Work]) -> AsyncIterator[None]:
    """Run all of them, by name, until the block ends. Then `stop` is set.

    `watches` only look, and are cancelled then; `works` write, and have a moment to end by themselves. Each meets its
    own troubles: one that raises is a defect, logged, and the others go on.
    """
    looking = [asyncio.create_task(_run(name, watch), name=name) for name, watch in watches.items()]
    writing = [asyncio.create_task(_run(name, work), name=name) for name, work in works.items()]
    try:
        yield
    finally:
        stop.set()
        for task in looking:
            task.cancel()
        _, late = await asyncio.wait(writing, timeout=LAST_SECONDS)
        for task in late:
            task.cancel()
        await asyncio.gather(*looking, *writing, return_exceptions=True)


async def _run(name: str, work: Work) -> None:
    try:
        await work
    except Exception:
        log.exception("work.failed name=%s", name)
