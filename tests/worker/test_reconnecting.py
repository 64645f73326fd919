"""A worker whose way to the server is cut, and mended again."""

from __future__ import annotations

import time
from datetime import UTC, datetime

from prefect.client.schemas.actions import WorkPoolCreate
from prefect.events.filters import EventAnyResourceFilter, EventFilter, EventNameFilter
from prefect.states import Scheduled

from benchmarks.harness import CountingProxy
from proactive_prefect.worker import ProactiveWorker

from ..conftest import Server
from ..support import wait_until
from .conftest import Project

_STREAM = "GET /api/events/out"


async def test_a_worker_may_be_started_before_its_server(project: Project, prefect_server: Server) -> None:
    """It says that there is no answer, and works as soon as there is one."""
    proxy = CountingProxy(prefect_server.api_url)
    project.work(PREFECT_API_URL=f"http://127.0.0.1:{proxy.port}/api")
    log = project.folder / "worker0.log"
    await wait_until(lambda: "did not answer" in log.read_text(), what="the worker has told", timeout=120)
    run = await project.start("quick")
    await proxy.mend()
    try:
        await project.ended(run, "Completed")
        await project.ended(await project.start("quick"), "Completed")
    finally:
        proxy.cut()


async def test_a_cancelled_run_stops_where_no_event_comes_through(project: Project, prefect_server: Server) -> None:
    """A proxy that lets no websocket through: the worker says so, and asks."""
    async with CountingProxy(prefect_server.api_url, refused=_STREAM.encode()) as proxy:
        await project.worker(PREFECT_API_URL=f"http://127.0.0.1:{proxy.port}/api")
        run = await project.start("slow")
        await project.wrote("began")
        await project.cancel(run)
        await project.ended(run, "Cancelled", timeout=40)
        await project.wrote("cleaned")
        assert "There is no event stream" in (project.folder / "worker0.log").read_text()


async def test_a_pool_that_is_made_anew_is_heard(project: Project) -> None:
    """Deleted and created again under the worker: run-now and cancel come by its events, as before."""
    await project.worker()
    await project.ended(await project.start("quick"), "Completed")
    template = ProactiveWorker.get_default_base_job_template()
    await project.client.delete_work_pool(project.pool)
    made = WorkPoolCreate(name=project.pool, type="proactive", base_job_template=template)
    await project.client.create_work_pool(made)
    await project.deploy("slow")
    run = await project.start("slow")
    await project.wrote("began", timeout=120)
    await project.cancel(run)
    await project.ended(run, "Cancelled", timeout=60)  # by the worker's next sign of life it knows the new pool
    asked = time.time()
    again = await project.start("slow", word="again.")
    (line,) = await project.wrote("again.")
    assert line.at - asked < 10
    await project.cancel(again)
    await project.ended(again, "Cancelled", timeout=10)


async def test_what_is_told_again_after_a_break_is_not_heeded_twice(project: Project, prefect_server: Server) -> None:
    """A run was cancelled and begun anew; a new stream begins with the last minute, and so with that cancelling."""
    async with CountingProxy(prefect_server.api_url) as proxy:
        await project.worker(PREFECT_API_URL=f"http://127.0.0.1:{proxy.port}/api")
        run = await project.start("slow", seconds=20)
        await project.wrote("began")
        await project.cancel(run)
        await project.ended(run, "Cancelled")
        await project.client.set_flow_run_state(run.id, Scheduled(scheduled_time=datetime.now(UTC)), force=True)
        await project.wrote("began", 2)

        async def written_down() -> bool:
            """Prefect takes some seconds to; only then a new stream tells it again."""
            about = EventAnyResourceFilter(id=[f"prefect.flow-run.{run.id}"])
            names = EventNameFilter(name=["prefect.flow-run.Cancelling"])
            found = await project.client.read_events(EventFilter(any_resource=about, event=names), 50)
            return bool(found.events)

        await wait_until(written_down, what="Prefect has written down that it was cancelled")
        proxy.cut()
        proxy.requests.clear()
        await proxy.mend()
        await wait_until(lambda: _STREAM in proxy.requests, what="there is a new stream")
        await project.ended(await project.start("quick"), "Completed")
        await project.ended(run, "Completed")
        assert len(project.lines("ended")) == 1
