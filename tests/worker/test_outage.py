"""The server goes away and comes back: the worker keeps what it can, and does not fall upon it."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path

import pytest

from benchmarks.harness import CountingProxy

from ..conftest import start_server, stop
from ..support import free_port, wait_until
from .conftest import project_on

pytestmark = [pytest.mark.server, pytest.mark.slow, pytest.mark.timeout(600)]  # two starts of a server


async def test_a_worker_outlives_an_outage_of_the_server(tmp_path: Path) -> None:
    """A run at work goes on; its end is told when the server is back, new runs start, and few requests are made."""
    home, port = tmp_path / "prefect", free_port()
    home.mkdir()
    server, process = await asyncio.to_thread(start_server, home, port)
    try:
        async with project_on(server, tmp_path) as project, CountingProxy(server.api_url) as proxy:
            worker = await project.worker(PREFECT_API_URL=f"http://127.0.0.1:{proxy.port}/api")
            run = await project.start("slow", seconds=6)
            await project.wrote("began")
            await asyncio.to_thread(stop, process)
            await project.wrote("ended")
            _, process = await asyncio.to_thread(start_server, home, port)
            proxy.requests.clear()

            async def ended() -> bool:
                with contextlib.suppress(Exception):  # the server is just up
                    state = (await project.client.read_flow_run(run.id)).state
                    return state is not None and state.is_final()
                return False

            await wait_until(ended, what="the run of the outage has ended", timeout=120)
            await project.ended(await project.start("quick"), "Completed", timeout=120)
            assert worker.poll() is None
            assert len(proxy.requests) < 200
    finally:
        await asyncio.to_thread(stop, process)
