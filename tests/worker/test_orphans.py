"""Runs of workers that died with their machines, where only the gateway is left to see to them."""

from __future__ import annotations

import asyncio
import signal
import time
from datetime import UTC, datetime
from uuid import uuid4

import pytest
from prefect.client.schemas.objects import FlowRun
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect.states import Cancelling, Pending, Running, Scheduled

from proactive_prefect.prefect_api import connect
from proactive_prefect.prefect_api.orphans import Watch
from proactive_prefect.prefect_api.signatures import HEARTBEAT, Owner

from ..conftest import Server
from ..support import wait_until
from .conftest import Project

_SILENCE = 8.0  # seconds: Prefect may take five to write down an event, and so a run's sign of life


async def _held(project: Project, worker: str, *, cancelled: bool = False) -> FlowRun:
    """A run at work on a worker of that name, as far as Prefect knows."""
    signed = Owner(worker, "elsewhere", "0123456789ab").claim()
    run = await project.start("slow", at=datetime(2090, 1, 1, tzinfo=UTC))
    await project.client.set_flow_run_state(run.id, Pending(message=signed), force=True)
    await project.client.set_flow_run_state(run.id, Running(message=signed), force=True)
    if cancelled:
        await project.client.set_flow_run_state(run.id, Cancelling(), force=True)
    return run


async def test_only_what_a_silent_worker_held_is_ended(project: Project, prefect_server: Server) -> None:
    """Crashed, or Cancelled where somebody had asked for that. What itself or its worker gives signs goes on."""
    silent, wanted = await _held(project, "silent"), await _held(project, "silent", cancelled=True)
    alive, busy = await _held(project, "alive"), await _held(project, "silent")
    waits = await project.start("slow", at=datetime(2090, 1, 1, tzinfo=UTC))
    await project.client.send_worker_heartbeat(project.pool, "silent", heartbeat_interval_seconds=1)
    ended: set[str] = set()

    async def sign(run: FlowRun) -> None:
        about = {"prefect.resource.id": f"prefect.flow-run.{run.id}"}
        await project.client._client.post(
            "/events",
            json=[
                {"id": str(uuid4()), "occurred": datetime.now(UTC).isoformat(), "event": HEARTBEAT, "resource": about}
            ],
        )

    with temporary_settings({PREFECT_API_URL: prefect_server.api_url}):
        async with connect() as api:
            watch = Watch(api, silence=_SILENCE)
            began = time.monotonic()

            async def both() -> bool:
                await project.client.send_worker_heartbeat(project.pool, "alive", heartbeat_interval_seconds=1)
                await sign(busy)
                ended.update(await watch.look())
                if ended:
                    assert time.monotonic() - began >= _SILENCE
                return len(ended) == 2

            await wait_until(both, what="both are ended")
            await sign(busy)
            assert await watch.look() == []
    states = {}
    for run in (silent, wanted, alive, busy, waits):
        state = (await project.client.read_flow_run(run.id)).state
        assert state is not None
        states[run.id] = state
    assert [states[run.id].name for run in (silent, wanted, alive, busy, waits)] == [
        "Crashed",
        "Cancelled",
        "Running",
        "Running",
        "Scheduled",
    ]
    assert states[silent.id].message == f"Worker 'silent' on elsewhere has given no sign of life for {_SILENCE:g} s."
    assert ended == {str(silent.id), str(wanted.id)}
    for run in (alive, busy, waits):
        await project.client.set_flow_run_state(run.id, Scheduled(scheduled_time=datetime(2091, 1, 1, tzinfo=UTC)))


@pytest.mark.slow
async def test_the_gateway_settles_the_runs_of_a_machine_that_is_gone(project: Project, prefect_server: Server) -> None:
    """kill -9 of the only worker of a pool: its run is Crashed within a minute, though no worker comes back."""
    worker = await project.worker(PROACTIVE_HOME=str(project.folder / "elsewhere"))
    run = await project.start("slow")
    await project.wrote("began")
    with temporary_settings({PREFECT_API_URL: prefect_server.api_url}):
        async with connect() as api:
            watch, looking = Watch(api), True

            async def look() -> None:
                while looking:
                    await watch.look()
                    await asyncio.sleep(5)

            looks = asyncio.create_task(look())
            await asyncio.sleep(0)
            worker.send_signal(signal.SIGKILL)
            worker.wait(30)
            killed = datetime.now(UTC)
            crashed = await project.ended(run, "Crashed", timeout=150)
            looking = False
            await looks
    assert crashed.end_time is not None
    assert crashed.state is not None
    assert "no sign of life" in (crashed.state.message or "")
    print(f"\nits machine gone: settled after {(crashed.end_time - killed).total_seconds():.0f} s")
