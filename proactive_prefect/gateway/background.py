"""What a gateway does beside answering: each work in a task of its own, from its start to its end."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from typing import Any

log = logging.getLogger("proactive.gateway")

# How long the works have, once they are told to stop, for their last writes.
LAST_SECONDS = 2.0
AGAIN_SECONDS = 5.0
"""After which a work that failed is started again."""
STEADY_SECONDS = 30.0
"""For which a work that was started again must not fail, to count as well."""

Work = Callable[[], Coroutine[Any, Any, None]]
"""Starts a work from its beginning, as often as it is called."""


@contextlib.asynccontextmanager
async def at_work(
    stop: asyncio.Event, watches: Mapping[str, Work], works: Mapping[str, Work], failing: set[str]
) -> AsyncIterator[None]:
    """Run all of them, by name, until the block ends. Then `stop` is set.

    `watches` only look, and are cancelled then; `works` write, and have a moment to end by themselves. Each meets its
    own troubles: one that raises, or ends before, is a defect, logged; it is in `failing`, and started again.
    """
    looking = [asyncio.create_task(_keep(*watch, stop, failing), name=watch[0]) for watch in watches.items()]
    writing = [asyncio.create_task(_keep(*work, stop, failing), name=work[0]) for work in works.items()]
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


async def _keep(name: str, work: Work, stop: asyncio.Event, failing: set[str]) -> None:
    while not stop.is_set():
        steady = asyncio.get_running_loop().call_later(STEADY_SECONDS, failing.discard, name)
        try:
            await work()
            if stop.is_set():
                return
            log.error("work.ended name=%s", name)
        except Exception:
            log.exception("work.failed name=%s", name)
        finally:
            steady.cancel()
        failing.add(name)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), AGAIN_SECONDS)
