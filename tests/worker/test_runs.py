"""Any flow that is deployed to the pool runs, exactly as with Prefect's own workers."""

from __future__ import annotations

import asyncio
import signal
from datetime import timedelta

from prefect.client.schemas.filters import LogFilter, LogFilterFlowRunId

from ..support import wait_until
from .conftest import Project, now, terminate


async def test_a_plain_flow_runs_with_the_usual_states_and_logs(project: Project) -> None:
    """A flow deployed as in Prefect's tutorial runs unchanged: the usual states, its logs."""
    await project.worker()
    for flow in ("quick", "quick_async"):
        run = await project.start(flow, word=flow)
        await project.ended(run, "Completed")
        states = await project.client.read_flow_run_states(run.id)
        assert [state.name for state in states] == ["Scheduled", "Pending", "Running", "Completed"]
    logs = LogFilter(flow_run_id=LogFilterFlowRunId(any_=[run.id]))

    async def logged() -> bool:
        return any("a line of the flow" in log.message for log in await project.client.read_logs(logs))

    await wait_until(logged, what="the flow's own log line")

    async def told() -> bool:
        now = await project.client.read_flow_run(run.id)
        return bool(now.flow_version and now.infrastructure_pid)

    await wait_until(told, what="the version of the flow, which the worker tells when it has time")


async def test_flows_by_module_path_and_in_retries(project: Project) -> None:
    """An entrypoint may be a module path, and a flow's own retries are Prefect's."""
    await project.worker()
    await project.deploy("quick", "flows.quick")
    await project.ended(await project.start("quick"), "Completed")
    await project.ended(await project.start("flaky", file=str(project.folder / "tries.txt")), "Completed")
    assert len((project.folder / "tries.txt").read_text().splitlines()) == 3


async def test_a_scheduled_run_is_never_early_and_hardly_late(project: Project) -> None:
    """A run for an instant writes its first line not before it, and without waiting for any poll after it."""
    await project.worker()
    at = now() + timedelta(seconds=6)
    run = await project.start("quick", at=at)
    (line,) = await project.wrote("ran")
    assert 0 <= line.at - at.timestamp() < 8  # how late exactly is for the benchmark, on a machine without other work
    await project.ended(run, "Completed")


async def test_each_run_has_a_process_of_its_own(project: Project) -> None:
    """Two runs never share a process, so nothing that one does can reach the other."""
    await project.worker()
    for _ in range(3):
        await project.start("quick")
    assert len({line.pid for line in await project.wrote("ran", 3)}) == 3


async def test_changed_code_is_picked_up(project: Project) -> None:
    """A run that begins after a file was changed runs the new code, whether the worker has it imported or not."""
    await project.worker(PROACTIVE_WORKER_PRELOAD="helper")
    await project.ended(await project.start("value"), "Completed")
    (project.folder / "helper.py").write_text("VALUE = 22\n")
    await project.ended(await project.start("value"), "Completed")
    assert [line.word for line in project.lines()] == ["1", "22"]


async def test_a_cancelled_run_cleans_up_and_is_gone(project: Project) -> None:
    """Cancelling from the UI, API or CLI ends the run within two seconds, its clean-up done and its children ended."""
    await project.worker()
    for flow in ("slow", "slow_async"):
        run = await project.start(flow, file=str(project.folder / f"{flow}.txt"))
        file = project.folder / f"{flow}.txt"
        await wait_until(lambda file=file: file.exists() and "began" in file.read_text(), what="the flow began")
        asked = now()
        await project.cancel(run)
        ended = await project.ended(run, "Cancelled")
        assert ended.end_time is not None
        assert (ended.end_time - asked).total_seconds() < 4
        assert "cleaned" in file.read_text()
        states = [state.name for state in await project.client.read_flow_run_states(run.id)]
        assert "Crashed" not in states
    rows = (project.folder / "slow.txt").read_text().splitlines()
    children = [int(row.split()[0].removeprefix("child:")) for row in rows if "child:" in row]
    await wait_until(lambda: not {p.pid for p in project.processes()} & set(children), what="its child ended")


async def test_a_run_that_ignores_its_cancellation_is_killed(project: Project) -> None:
    """A flow that does not heed the signal is killed after the grace, and is Cancelled all the same."""
    await project.worker()
    run = await project.start("stubborn")
    (line,) = await project.wrote("began")
    await project.cancel(run)
    await project.ended(run, "Cancelled")
    await wait_until(lambda: line.pid not in [p.pid for p in project.processes()], what="the process ended")


async def test_a_killed_process_is_a_crash_that_names_the_signal(project: Project) -> None:
    """kill -9 of a run's process makes it Crashed at once, with the signal's name in the message."""
    await project.worker()
    run = await project.start("slow")
    (line,) = await project.wrote("began")
    killed = now()
    next(p for p in project.processes() if p.pid == line.pid).send_signal(signal.SIGKILL)
    crashed = await project.ended(run, "Crashed")
    assert crashed.state is not None
    assert crashed.end_time is not None
    assert "SIGKILL" in (crashed.state.message or "")
    assert (crashed.end_time - killed).total_seconds() < 4


async def test_a_process_that_leaves_without_a_word_is_a_crash(project: Project) -> None:
    """`os._exit(0)` in a flow does not leave its run Running for ever."""
    await project.worker()
    run = await project.start("leaves")
    crashed = await project.ended(run, "Crashed")
    assert crashed.state is not None
    assert "exit status 0" in (crashed.state.message or "")


async def test_limits_of_time_and_memory(project: Project) -> None:
    """A run beyond its time limit is killed and TimedOut; one beyond its memory limit fails with a MemoryError."""
    await project.worker()
    await project.deploy("stubborn", job_variables={"time_limit": 2})
    await project.deploy("greedy", job_variables={"memory_limit": 300})
    late, greedy = await project.start("stubborn"), await project.start("greedy")
    timed_out = await project.ended(late, "TimedOut")
    assert timed_out.state is not None
    assert "2 seconds" in (timed_out.state.message or "")
    failed = await project.ended(greedy, "Failed")
    assert failed.state is not None
    assert "MemoryError" in (failed.state.message or "")


async def test_a_time_limit_counts_from_the_instant(project: Project) -> None:
    """A scheduled run waits for its instant in its process, for longer than it may take: that does not count."""
    await project.worker()
    await project.deploy("quick", job_variables={"time_limit": 1})
    runs = [await project.start("quick", at=now() + timedelta(seconds=8)) for _ in range(12)]
    for run in runs:
        await project.ended(run, "Completed")


async def test_a_run_that_is_cancelled_at_its_time_limit_is_cancelled(project: Project) -> None:
    """It ignores the cancellation, and its time is up before that is enforced: Prefect lets it be Cancelled only."""
    await project.worker()
    await project.deploy("stubborn", job_variables={"time_limit": 5, "cancel_grace": 60})
    run = await project.start("stubborn")
    await project.wrote("began")
    await project.cancel(run)
    await project.ended(run, "Cancelled")


async def test_a_run_is_cancelled_while_its_worker_stops(project: Project) -> None:
    """SIGTERM, and within the worker's grace somebody cancels what is still at work: it is, and the worker ends."""
    worker = await project.worker(PROACTIVE_WORKER_GRACE="120")
    run = await project.start("slow")
    await project.wrote("began")
    worker.send_signal(signal.SIGTERM)
    log = project.folder / "worker0.log"
    await wait_until(lambda: "Stopping: 1 runs" in log.read_text(), what="the worker stops")
    await project.cancel(run)
    await project.ended(run, "Cancelled")
    await asyncio.to_thread(worker.wait, 60)
    assert len(project.lines("cleaned")) == 1


async def test_a_stopped_worker_leaves_no_run_behind(project: Project) -> None:
    """SIGTERM: nothing more is claimed, short runs finish, what outlives the grace is marked, no process is left."""
    worker = await project.worker(PROACTIVE_WORKER_GRACE="3")
    short = await project.start("slow", seconds=2, word="short")
    long = await project.start("slow", seconds=60, word="long")
    await project.wrote("short")
    await project.wrote("long")
    assert terminate(worker) < 20
    await project.ended(short, "Completed")
    crashed = await project.ended(long, "Crashed")
    assert crashed.state is not None
    assert "worker was stopped" in (crashed.state.message or "")
    await wait_until(lambda: not project.processes(), what="no process is left")


async def test_a_worker_that_a_shell_put_into_the_background_stops_too(project: Project) -> None:
    """SIGTERM ends a worker that was started with SIGINT ignored, as a shell starts its background jobs."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        worker = project.work()
    finally:
        signal.signal(signal.SIGINT, before)
    await wait_until(lambda: "started!" in (project.folder / "worker0.log").read_text(), what="it started", timeout=120)
    assert terminate(worker) < 15


async def test_a_fresh_interpreter_where_a_fork_will_not_do(project: Project) -> None:
    """`isolation = spawn`, and variables that an interpreter reads when it starts, give the run a new interpreter."""
    await project.worker()
    await project.deploy("quick", job_variables={"isolation": "spawn"})
    await project.ended(await project.start("quick"), "Completed")
    await project.deploy("seed", job_variables={"env": {"PYTHONHASHSEED": "7"}})
    await project.ended(await project.start("seed"), "Completed")
    assert project.lines("seed")[0].word == "seed:7"
