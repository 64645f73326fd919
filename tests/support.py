"""What tests share: waiting for a condition by name, free ports, and processes that end with the test."""

from __future__ import annotations

import asyncio
import inspect
import socket
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")


async def wait_until(
    condition: Callable[[], T | Awaitable[T]], *, what: str, timeout: float = 60.0, every: float = 0.1
) -> T:
    """Wait until `condition` gives something true, and return that; AssertionError naming `what` after `timeout` s."""
    deadline = time.monotonic() + timeout
    while True:
        answer = condition()
        value = await answer if inspect.isawaitable(answer) else answer
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {timeout:g} s: {what}")
        await asyncio.sleep(every)  # the pause between two looks, not a wait for luck


def wait_until_sync(condition: Callable[[], T], *, what: str, timeout: float = 60.0, every: float = 0.1) -> T:
    """`wait_until` for tests without an event loop."""

    async def wait() -> T:
        return await wait_until(condition, what=what, timeout=timeout, every=every)

    return asyncio.run(wait())


def free_port() -> int:
    """A port of 127.0.0.1 that nothing listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
