"""A project by somebody who has never heard of us: deployed with Prefect's own command, run by the warm worker."""

from __future__ import annotations

import asyncio
import json
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId, LogFilter, LogFilterFlowRunId

from ..support import wait_until
from .conftest import Project

pytestmark = pytest.mark.slow  # two of Prefect's commands, each an interpreter of its own

_REPOSITORIES = ["PrefectHQ/prefect", "pydantic/pydantic", "encode/httpx"]

# As in Prefect's tutorial: tasks with retries, mapped over a list, a sub-flow, logging, an artifact.
_FLOW = '''
import httpx
from prefect import flow, task
from prefect.artifacts import create_markdown_artifact
from prefect.logging import get_run_logger


@task(retries=3, retry_delay_seconds=0.1, log_prints=True)
def fetch_stats(api: str, repository: str) -> dict:
    """The numbers of one repository."""
    response = httpx.get(f"{api}/repos/{repository}")
    response.raise_for_status()
    print(f"fetched {repository}")
    return response.json()


@task
def stars(stats: dict) -> int:
    return stats["stargazers_count"]


@flow
def summary(counts: list[int]) -> int:
    return sum(counts)


@flow(name="GitHub Stars", log_prints=True)
def github_stars(api: str, repositories: list[str]) -> int:
    """How many stars all the repositories have."""
    stats = fetch_stats.map(api, repositories)
    total = summary(stars.map(stats).result())
    get_run_logger().info("%d stars in all", total)
    create_markdown_artifact(key="stars", markdown=f"# {total} stars")
    return total


if __name__ == "__main__":
    github_stars("https://api.github.com", ["PrefectHQ/prefect"])
'''

_PREFECT_YAML = """
name: github-stars
pull:
  - prefect.deployments.steps.set_working_directory:
      directory: {folder}
deployments:
  - name: daily
    entrypoint: github_stars.py:github_stars
    parameters: {{api: "{api}", repositories: {repositories}}}
    work_pool: {{name: {pool}}}
    schedules: [{{cron: "0 8 * * *", timezone: Europe/Berlin}}]
"""


@pytest.fixture
def github() -> Iterator[tuple[str, Counter[str]]]:
    """Stands in for GitHub, which is not ours: its first answer for each repository is an error."""
    asked: Counter[str] = Counter()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked[self.path] += 1
            self.send_response(503 if asked[self.path] == 1 else 200)
            self.end_headers()
            self.wfile.write(json.dumps({"stargazers_count": 14}).encode())

        def log_message(self, *_: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", asked
    server.shutdown()


async def test_a_tutorial_project_runs_unchanged(project: Project, github: tuple[str, Counter[str]]) -> None:
    """`prefect deploy` and `prefect deployment run`: tasks, retries, mapping, sub-flow, logs, artifact, as anywhere."""
    api, asked = github
    folder = project.folder / "stranger"
    folder.mkdir()
    (folder / "github_stars.py").write_text(_FLOW)
    (folder / "prefect.yaml").write_text(
        _PREFECT_YAML.format(folder=folder, api=api, repositories=json.dumps(_REPOSITORIES), pool=project.pool)
    )

    async def prefect(*arguments: str) -> str:
        command = [sys.executable, "-m", "prefect", "--no-prompt", *arguments]
        process = await asyncio.create_subprocess_exec(
            *command, cwd=folder, env=project.env, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
        )
        out, _ = await process.communicate()
        assert process.returncode == 0, out.decode()
        return out.decode()

    await project.worker()
    await prefect("deploy", "--all")
    await prefect("deployment", "run", "GitHub Stars/daily")
    deployment = await project.client.read_deployment_by_name("GitHub Stars/daily")
    runs = await project.client.read_flow_runs()
    (run,) = [each for each in runs if each.deployment_id == deployment.id and not each.auto_scheduled]
    await project.ended(run, "Completed", timeout=120)

    assert asked == {f"/repos/{name}": 2 for name in _REPOSITORIES}  # each failed once, and was tried again
    mine = FlowRunFilter(id=FlowRunFilterId(any_=[run.id]))
    wanted = {"fetch_stats": 3, "stars": 3}

    async def tasks() -> bool:
        found = await project.client.read_task_runs(flow_run_filter=mine)
        ended = Counter(each.name.partition("-")[0] for each in found if each.state_name == "Completed")
        return all(ended[name] == count for name, count in wanted.items())

    await wait_until(tasks, what="six tasks Completed")  # Prefect takes them from their events
    logs = LogFilter(flow_run_id=LogFilterFlowRunId(any_=[run.id]))

    async def logged() -> bool:
        messages = [log.message for log in await project.client.read_logs(logs)]
        return "42 stars in all" in messages and f"fetched {_REPOSITORIES[0]}" in messages

    await wait_until(logged, what="the flow's and the tasks' own lines")
    wanted_key = {"artifacts": {"key": {"any_": ["stars"]}}}
    answer = await project.client.request("POST", "/artifacts/latest/filter", json=wanted_key)
    assert [each["data"] for each in answer.json()] == ["# 42 stars"]
