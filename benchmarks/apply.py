"""Deploying 200 rules: `proactive apply` beside `prefect deploy --all` of the same rules, rendered.

Each side has a Prefect server of its own, new and empty, on its embedded database. `first` is the time until all are
deployed, `again` the time of the same once more, without a change; p50, p99 and max are of one deployment.
"""

from __future__ import annotations

import asyncio
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

from prefect.settings import PREFECT_API_URL, temporary_settings
from rich.progress import Progress

from proactive_prefect.deploy.apply import apply_plan
from proactive_prefect.deploy.compile import Project, compile_rules
from proactive_prefect.deploy.plan import make_plan
from proactive_prefect.deploy.render import render
from proactive_prefect.prefect_api.client import connect
from proactive_prefect.rules.models import Rulebook
from tests.conftest import Server, start_server, stop

from .report import report, summarise

ROOT = Path(__file__).parent.parent
POOL = "bench"
_DEPLOYED = re.compile(r"successfully (created|updated)")


def main(quick: bool) -> None:
    """Measure both sides and report. 200 rules; 20 with `quick`."""
    count = 20 if quick else 200
    rules = [
        {
            "kind": "heartbeat",
            "id": f"rule-{number:03}",
            "every": f"{5 + number % 55}m",
            "action": {"type": "python", "call": "flows.actions:system_health"},
        }
        for number in range(count)
    ]
    book = Rulebook.model_validate({"proactive": {"enabled": True}, "rules": rules})
    with tempfile.TemporaryDirectory() as folder:
        project = Project("bench", Path(folder), POOL)
        shutil.copytree(ROOT / "flows", project.root / "flows")
        with _server() as server:
            ours = asyncio.run(_ours(server, book, project))
        with _server() as server:
            theirs = _prefect_deploy(server, book, project)
    sides = {"ours": ours, "prefect_deploy": theirs}
    report("apply", runs=count, sides=sides, ratios={"prefect_deploy": theirs["first"] / ours["first"]})


@contextmanager
def _server() -> Iterator[Server]:
    with tempfile.TemporaryDirectory() as home:
        server, process = start_server(Path(home))
        try:
            yield server
        finally:
            stop(process)


async def _ours(server: Server, book: Rulebook, project: Project) -> dict[str, float]:
    with temporary_settings({PREFECT_API_URL: server.api_url}):
        async with connect() as api:
            began = time.perf_counter()
            plan = await make_plan(api, compile_rules(book, project), project)
            marks = [time.perf_counter()]
            with Progress() as bar:
                task = bar.add_task("apply", total=plan.writes)

                def step(_: str) -> None:
                    marks.append(time.perf_counter())
                    bar.advance(task)

                await apply_plan(api, plan, step)
            first = time.perf_counter() - began
            began = time.perf_counter()
            plan = await make_plan(api, compile_rules(book, project), project)
            await apply_plan(api, plan)
            again = time.perf_counter() - began
    if plan.differs:
        raise SystemExit("the second apply found a difference")
    return _side(marks, len(book.rules), first, again)


def _prefect_deploy(server: Server, book: Rulebook, project: Project) -> dict[str, float]:
    (project.root / "prefect.yaml").write_text(render(compile_rules(book, project)))
    env = server.env | {"PYTHONPATH": str(ROOT)}
    prefect = [sys.executable, "-m", "prefect", "--no-prompt"]
    subprocess.run(
        [*prefect, "work-pool", "create", "--type", "process", POOL], env=env, check=True, capture_output=True
    )

    def deploy() -> list[float]:
        marks = [time.perf_counter()]
        command = [*prefect, "deploy", "--all"]
        with subprocess.Popen(
            command, cwd=project.root, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        ) as process:
            assert process.stdout is not None
            for line in process.stdout:
                if _DEPLOYED.search(line):
                    marks.append(time.perf_counter())
        if process.returncode or len(marks) != len(book.rules) + 1:
            raise SystemExit(f"prefect deploy ended with {process.returncode} after {len(marks) - 1} deployments")
        return marks

    began = time.perf_counter()
    marks = deploy()
    first = time.perf_counter() - began
    began = time.perf_counter()
    deploy()
    return _side(marks, len(book.rules), first, time.perf_counter() - began)


def _side(marks: list[float], count: int, first: float, again: float) -> dict[str, float]:
    gaps = [after - before for before, after in pairwise(marks)]
    return summarise(gaps, rate=count / first, first=first, again=again)
