"""The action of the benchmark's webhook: its first line writes the time."""

from __future__ import annotations

import os
import time
from pathlib import Path

from proactive_prefect import Context


async def land(ctx: Context) -> None:
    """Write the key that the caller sent, and now."""
    _write(f"{ctx.payload['key']} {time.time()}\n")


def _write(line: str) -> None:
    with Path(os.environ["BENCH_LINES"]).open("a") as out:
        out.write(line)
