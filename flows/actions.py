"""What this project's own rules run: useful on any machine, and examples of how to write an action.

An action is a function of a `Context`. It returns a text (to notify), None (quiet) or a `HeartbeatResult`. An async
one runs in the run's own process, where Prefect is imported already; a sync one runs in a child process, so it may
block as it likes and is still ended at its timeout. Imports of Prefect stand inside the functions that use it: a
module of actions is imported in many places, and should be light.
"""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from proactive_prefect import Context, HeartbeatResult, skill

if TYPE_CHECKING:
    from prefect.client.orchestration import PrefectClient
    from prefect.client.schemas.filters import FlowRunFilter
    from prefect.client.schemas.objects import FlowRun

_PAGE = 200  # the most that Prefect gives at once
_MOST_RUNS = 20_000
_LISTED = 20
_LONGEST_PAYLOAD = 64 * 1024


async def system_health(ctx: Context) -> HeartbeatResult:
    """Look at this machine and at Prefect's latest runs; quiet unless something is wrong.

    Config, each with its default: `paths` (["/"]), `disk_percent` (90), `memory_percent` (90), `load_per_cpu` (4.0,
    of the last five minutes), `failed_within_minutes` (5): as long as the time between two heartbeats, so that each
    failed run is told once.
    """
    config = ctx.config
    problems: list[str] = []
    disks: dict[str, float] = {}
    for path in config.get("paths", ["/"]):
        disk = psutil.disk_usage(path)
        disks[path] = disk.percent
        if disk.percent >= config.get("disk_percent", 90):
            problems.append(f"disk {plain(path)} is {disk.percent:.0f}% full: {size(disk.free)} left")
    memory = psutil.virtual_memory()
    if memory.percent >= config.get("memory_percent", 90):
        problems.append(f"memory is {memory.percent:.0f}% used: {size(memory.available)} left")
    load = os.getloadavg()[1] / (os.cpu_count() or 1)
    if load >= config.get("load_per_cpu", 4.0):
        problems.append(f"the load is {load:.1f} for each CPU")
    window = timedelta(minutes=config.get("failed_within_minutes", 5))
    failed = await _failed_runs(ctx.due - window, ctx.due)
    problems += [f"failed: {_link(run)}" for run in failed[:_LISTED]]
    if len(failed) > _LISTED:
        problems.append(f"and {len(failed) - _LISTED} more failed runs")
    found = {"disk_percent": disks, "memory_percent": memory.percent, "load_per_cpu": round(load, 2)}
    ctx.logger.info("Disk, memory and load: %s; failed runs: %d", found, len(failed))
    if not problems:
        return HeartbeatResult(should_notify=False, metadata=found)
    title = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
    return HeartbeatResult(True, f"{title}:\n\n" + "\n".join(f"- {problem}" for problem in problems), found)


async def daily_summary(ctx: Context) -> HeartbeatResult:
    """What Prefect ran in the 24 hours before the summary was due, by rule and outcome, and every failed run."""
    since = ctx.due - timedelta(hours=24)
    runs, cut, names = await _runs_due(since, ctx.due)
    outcomes = Counter(run.state_name or "?" for run in runs)
    of_rule: dict[str, Counter[str]] = {}
    for run in runs:
        of_rule.setdefault(names.get(str(run.deployment_id), "(no deployment)"), Counter())[run.state_name or "?"] += 1
    failed = [run for run in runs if run.state_type and run.state_type.value in ("FAILED", "CRASHED")]

    counted = ", ".join(f"{count} {plain(name)}" for name, count in outcomes.most_common()) or "nothing ran"
    lines = [f"{len(runs):,} runs in the 24 hours to {ctx.due:%Y-%m-%d %H:%M %Z}: {counted}."]
    if cut:
        lines += ["", f"Only the first {len(runs):,} are counted."]
    if of_rule:
        lines += ["", "| Rule | Runs | Outcomes |", "|---|---:|---|"]
        for name, counts in sorted(of_rule.items()):
            told = ", ".join(f"{plain(outcome)} {count}" for outcome, count in counts.most_common())
            lines.append(f"| {plain(name)} | {counts.total():,} | {told} |")
    if failed:
        lines += ["", f"{len(failed)} failed:", "", *(f"- {_link(run)}" for run in failed[:_LISTED])]
        if len(failed) > _LISTED:
            lines.append(f"- and {len(failed) - _LISTED} more")
    return HeartbeatResult(True, "\n".join(lines), {"runs": len(runs), "failed": len(failed), "outcomes": outcomes})


def remember(ctx: Context) -> str:
    """Keep what a webhook's caller sent. It is a stranger's text: fenced, so that nothing in it is taken for markup."""
    payload = ctx.payload
    if payload is None:
        return "Called without a payload."
    is_text = isinstance(payload, str)
    text = payload if is_text else json.dumps(payload, indent=2, ensure_ascii=False)
    cut = len(text) - _LONGEST_PAYLOAD
    note = f"\n\nCut: {cut:,} more characters." if cut > 0 else ""
    text = text[:_LONGEST_PAYLOAD]
    # Nothing in the text can close a fence that is longer than any run of backticks in it.
    fence = "`" * max(3, 1 + max((len(ticks) for ticks in re.findall("`+", text)), default=0))
    return (
        f"Called with {size(len(ctx.payload_text or ''))}:\n\n{fence}{'' if is_text else 'json'}\n{text}\n{fence}{note}"
    )


@skill("stale-files")
def stale_files(ctx: Context) -> HeartbeatResult:
    """Report temporary and log files that nobody has touched for long; quiet while they take little room.

    Config, each with its default: `path` ("."), `days` (7), `at_least_mb` (10), `endings` ([".log", ".tmp", ".bak",
    ".old"]). Hidden folders are left out, links are not followed, and nothing is deleted.
    """
    root = Path(ctx.config.get("path", "."))
    days = ctx.config.get("days", 7)
    endings = tuple(ctx.config.get("endings", [".log", ".tmp", ".bak", ".old"]))
    before = ctx.due.timestamp() - days * 86400
    found = sorted(_old_files(root, endings, before), reverse=True)
    total = sum(length for length, _ in found)
    metadata = {"files": len(found), "bytes": total}
    if not found or total < ctx.config.get("at_least_mb", 10) * 1_000_000:
        return HeartbeatResult(should_notify=False, metadata=metadata)
    lines = [f"{len(found):,} files, {size(total)}, were not touched for {days} days below {plain(str(root))}:", ""]
    lines += [f"- {size(length)} {plain(path)}" for length, path in found[:_LISTED]]
    if len(found) > _LISTED:
        lines.append(f"- and {len(found) - _LISTED:,} more")
    return HeartbeatResult(True, "\n".join(lines), metadata)


def plain(text: str) -> str:
    """`text` so that markdown shows it as it is: names and messages may come from anywhere."""
    return re.sub(r"([\\`*_{}\[\]<>()#+!|~&-])", r"\\\1", " ".join(text.split()))


def size(count: float) -> str:
    """Bytes for people: "1.5 GB"."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} bytes" if unit == "bytes" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def _old_files(root: Path, endings: tuple[str, ...], before: float) -> Iterator[tuple[int, str]]:
    for folder, folders, files in os.walk(root):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in files:
            if not name.endswith(endings):
                continue
            path = Path(folder) / name
            try:
                seen = path.lstat()
            except OSError:
                continue  # gone meanwhile
            if seen.st_mtime < before:
                yield seen.st_size, str(path)


async def _failed_runs(since: datetime, until: datetime) -> list[FlowRun]:
    """The runs that ended between the two instants as failed, timed out or crashed."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import (
        FlowRunFilter,
        FlowRunFilterEndTime,
        FlowRunFilterState,
        FlowRunFilterStateType,
    )
    from prefect.client.schemas.objects import StateType

    failed = FlowRunFilter(
        state=FlowRunFilterState(type=FlowRunFilterStateType(any_=[StateType.FAILED, StateType.CRASHED])),
        end_time=FlowRunFilterEndTime(after_=since, before_=until),
    )
    async with get_client() as client:
        return (await _read(client, failed))[0]


async def _runs_due(since: datetime, until: datetime) -> tuple[list[FlowRun], bool, dict[str, str]]:
    """The runs that were due between the two instants, whether there are more, and each deployment's name by its id."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import (
        DeploymentFilter,
        DeploymentFilterId,
        FlowRunFilter,
        FlowRunFilterExpectedStartTime,
        FlowRunFilterState,
        FlowRunFilterStateType,
    )
    from prefect.client.schemas.objects import StateType

    due = FlowRunFilter(
        expected_start_time=FlowRunFilterExpectedStartTime(after_=since, before_=until),
        state=FlowRunFilterState(type=FlowRunFilterStateType(not_any_=[StateType.SCHEDULED])),
    )
    async with get_client() as client:
        runs, cut = await _read(client, due)
        ids = sorted({run.deployment_id for run in runs if run.deployment_id is not None})
        names: dict[str, str] = {}
        for start in range(0, len(ids), _PAGE):
            asked = DeploymentFilter(id=DeploymentFilterId(any_=ids[start : start + _PAGE]))
            for deployment in await client.read_deployments(deployment_filter=asked, limit=_PAGE):
                names[str(deployment.id)] = deployment.name
        return runs, cut, names


async def _read(client: PrefectClient, wanted: FlowRunFilter) -> tuple[list[FlowRun], bool]:
    runs: list[FlowRun] = []
    while len(runs) < _MOST_RUNS:
        page = await client.read_flow_runs(flow_run_filter=wanted, limit=_PAGE, offset=len(runs))
        runs += page
        if len(page) < _PAGE:
            return runs, False
    return runs, True


def _link(run: FlowRun) -> str:
    """A failed run by its name, as a link into Prefect's UI where there is one, with its state's message."""
    from prefect.utilities.urls import url_for

    url: str | None = url_for("flow-run", obj_id=run.id)
    name = f"[{plain(run.name)}]({url})" if url else plain(run.name)
    state: Any = run.state
    return f"{name}: {plain(state.name)}, {plain((state.message or 'no message')[:200])}" if state else name
