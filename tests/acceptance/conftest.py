"""One `proactive up` of a project that uses what the seeds ask for, and what its outside looks like over HTTP."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
import tenacity

from proactive_prefect.cli.scaffold import write_project
from proactive_prefect.lifeline import die_with_parent

from ..conftest import stop
from ..support import free_port, wait_until_sync

ACTIONS = '''
"""The actions of the acceptance tests."""

import os
import time

from proactive_prefect import Context, HeartbeatResult


def tick(ctx: Context) -> str:
    return f"{ctx.rule_id} was due at {ctx.due.isoformat()}"


async def nothing_to_say(ctx: Context) -> HeartbeatResult:
    return HeartbeatResult(should_notify=False, message="nobody must see this")


def slow(ctx: Context) -> None:
    time.sleep(25)


def held(ctx: Context) -> None:
    while not os.path.exists("let-go"):
        time.sleep(0.1)


def broken(ctx: Context) -> None:
    raise RuntimeError("this action is broken")


def crashing(ctx: Context) -> None:
    os.abort()


async def look_around(ctx: Context) -> str:
    return f"woken because: {'; '.join(ctx.wakes) or 'it was due'}"


async def keep(ctx: Context) -> str:
    return f"got {ctx.payload!r}"


def no_session() -> bool:
    return False


async def agent(prompt: str, ctx: Context) -> str:
    return f"agent heard: {prompt}"
'''


def call(function: str) -> str:
    """The action that calls one of ACTIONS."""
    return f'action = {{ type = "python", call = "acting:{function}" }}'


def rules(now: datetime) -> str:
    """The rules file: intervals short enough for minutes to show what days would, and no shorter."""
    yesterday = (now - timedelta(days=1)).strftime("%a").lower()
    closed = f'{{ start = "{now - timedelta(hours=3):%H:%M}", end = "{now - timedelta(hours=2):%H:%M}" }}'
    return f"""
[proactive]
enabled = true
environment = "development"
modules = ["acting"]
agent = "acting:agent"
session_hook = "acting:no_session"
min_interval = "1s"

[defaults]
retries = 0
timeout = "120s"
on_missed = "run"

[[heartbeat]]
id = "beat"
every = "10s"
{call("tick")}

[[heartbeat]]
id = "quiet"
every = "30s"
{call("nothing_to_say")}

[[heartbeat]]
id = "slow"
every = "10s"
{call("slow")}

[[heartbeat]]
id = "broken"
every = "40s"
{call("broken")}

[[heartbeat]]
id = "crashing"
every = "40s"
{call("crashing")}

[[heartbeat]]
id = "by-hand"
every = "24h"
on_missed = "ask"
on_overlap = "allow"
{call("tick")}

[[cron]]
id = "each-minute"
cron = "* * * * *"
{call("tick")}

[[heartbeat]]
id = "watch"
every = "30s"
session = "research"
{call("look_around")}

[[cron]]
id = "collect"
cron = "* * * * *"
session = "research"
{call("tick")}

[[cron]]
id = "collect-in-silence"
cron = "* * * * *"
session = "research"
wake_heartbeat = "off"
{call("tick")}

[[webhook]]
id = "door"
on_overlap = "allow"
{call("keep")}

[[webhook]]
id = "held-door"
timeout = "600s"
{call("held")}

[[skill]]
id = "skill-cron"
skill = "tick"
on_overlap = "allow"
schedule = {{ type = "cron", cron = "* * * * *", timezone = "Asia/Tokyo" }}
{call("tick")}

[[skill]]
id = "skill-interval"
skill = "tick"
schedule = {{ type = "interval", every = "15s", start_at = {now - timedelta(seconds=7):%Y-%m-%dT%H:%M:%SZ} }}
{call("tick")}

[[skill]]
id = "out-of-hours"
skill = "tick"
schedule = {{ type = "interval", every = "30s" }}
conditions = {{ active_hours = {closed} }}
{call("tick")}

[[skill]]
id = "wrong-day"
skill = "tick"
schedule = {{ type = "interval", every = "30s" }}
conditions = {{ days_of_week = ["{yesterday}"] }}
{call("tick")}

[[skill]]
id = "production-only"
skill = "tick"
schedule = {{ type = "interval", every = "30s" }}
conditions = {{ environment = ["production"] }}
{call("tick")}

[[skill]]
id = "in-session"
skill = "tick"
schedule = {{ type = "interval", every = "30s" }}
conditions = {{ session_active = true }}
{call("tick")}

[[skill]]
id = "custom"
skill = "tick"
schedule = {{ type = "interval", every = "30s" }}
conditions = {{ custom = "1 > 2" }}
{call("tick")}

[heartbeats]
enabled = true
default_interval_secs = 30

[[heartbeats.prompts]]
name = "health_check"
prompt = "Check system health and report issues"
interval_secs = 40
"""


def once(at: datetime) -> str:
    """A skill that is due once."""
    return f"""
[[skill]]
id = "skill-once"
skill = "tick"
schedule = {{ type = "once", at = {at:%Y-%m-%dT%H:%M:%SZ} }}
{call("tick")}
"""


def environment(folder: Path) -> dict[str, str]:
    """An environment in which `proactive` uses `folder` and free ports, and nothing else of this machine."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "PROACTIVE_"))}
    return kept | {
        "PROACTIVE_HOME": str(folder / ".proactive"),
        "PREFECT_SERVER_API_PORT": str(free_port()),
        "PROACTIVE_GATEWAY_PORT": str(free_port()),
    }


def proactive(folder: Path, *words: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Run the command in a project, as a user does."""
    return subprocess.run(
        [sys.executable, "-m", "proactive_prefect.cli", *words],
        cwd=folder,
        env=env or environment(folder),
        capture_output=True,
        text=True,
        timeout=120,
    )


_patiently = tenacity.Retrying(  # the embedded database is busy now and then
    retry=tenacity.retry_if_result(lambda answer: answer.status_code >= 500),
    stop=tenacity.stop_after_delay(60),
    wait=tenacity.wait_fixed(0.5),
)


@dataclass
class Life:
    """A running project, seen from outside."""

    folder: Path
    env: dict[str, str]
    up: dict[str, Any]
    began: datetime
    """When the rules were written, to the second: from here their times are counted."""
    once_at: datetime | None = None
    """When `skill-once` is due."""

    def command(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run `proactive …` in the project, in another terminal."""
        env = {name: value for name, value in self.env.items() if name != "PREFECT_SERVER_API_PORT"}
        return proactive(self.folder, *words, env=env)

    def prefect(self, path: str, body: Any) -> Any:
        """POST to the Prefect API."""
        answer = _patiently(httpx.post, f"{self.up['prefect_api_url']}{path}", json=body, timeout=120)
        answer.raise_for_status()
        return answer.json()

    def gateway(self, path: str, **params: Any) -> Any:
        """GET from the gateway, as the operator."""
        answer = httpx.get(f"{self.up['gateway_url']}{path}", params=params, headers=self.operator, timeout=60)
        answer.raise_for_status()
        return answer.json()

    @property
    def operator(self) -> dict[str, str]:
        """What an operator's calls carry."""
        return {"Authorization": f"Bearer {self.up['token']}"}

    def runs(self, rule: str, *states: str) -> list[dict[str, Any]]:
        """The runs of a rule, oldest first; only those in one of the named states, where any are named."""
        found: list[dict[str, Any]] = self.prefect(
            "/flow_runs/filter",
            {"deployments": {"name": {"any_": [rule]}}, "sort": "EXPECTED_START_TIME_ASC", "limit": 200},
        )
        return [run for run in found if not states or run["state"]["name"] in states]

    def wait_for(self, rule: str, *states: str, count: int = 1, timeout: float = 240) -> list[dict[str, Any]]:
        """Wait until a rule has `count` runs in one of the states."""

        def enough() -> list[dict[str, Any]] | None:
            found = self.runs(rule, *states)
            return found if len(found) >= count else None

        found = wait_until_sync(enough, what=f"{count} runs of {rule} in {states}", timeout=timeout, every=0.5)
        assert found is not None
        return found

    def artifacts(self, key: str) -> list[dict[str, Any]]:
        """The artifacts of a key."""
        found: list[dict[str, Any]] = self.prefect("/artifacts/filter", {"artifacts": {"key": {"any_": [key]}}})
        return found


@pytest.fixture(scope="package")
def life(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Life]:
    """`proactive up`, ready, in a new project with the rules of the acceptance tests; ended by Ctrl-C.

    The skill that is due once is added when all runs, however long the start took.
    """
    began = datetime.now(UTC).replace(microsecond=0)
    with living(tmp_path_factory.mktemp("life"), rules(began), ACTIONS) as alive:
        at = datetime.now(UTC).replace(microsecond=0) + timedelta(seconds=60)
        declared = alive.folder / "proactive.toml"
        declared.write_text(declared.read_text().replace("[heartbeats]\n", f"{once(at)}\n[heartbeats]\n"))
        applied = alive.command("apply")
        assert applied.returncode == 0, applied.stderr
        yield replace(alive, began=began, once_at=at)


@contextlib.contextmanager
def living(folder: Path, declared: str, actions: str, **more: str) -> Iterator[Life]:
    """`proactive up` in a new project with those rules, those actions in acting.py and `more` environment."""
    write_project(folder)
    (folder / "acting.py").write_text(actions)
    (folder / "proactive.toml").write_text(declared)
    env = environment(folder) | more
    with up(folder, env) as alive:
        yield alive


@contextlib.contextmanager
def up(folder: Path, env: dict[str, str]) -> Iterator[Life]:
    """`proactive up` in a project that is there, until the block ends; then Ctrl-C."""
    log = folder / "up.log"
    with log.open("ab") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "proactive_prefect.cli", "up"],
            cwd=folder,
            env=env,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=die_with_parent,
        )
    up_file = folder / ".proactive" / "up.json"

    def ready() -> bool:
        assert process.poll() is None, f"up ended: {log.read_text()[-3000:]}"
        return up_file.is_file()

    try:
        wait_until_sync(ready, what="up.json, which `up` writes when it is ready", timeout=300)
        yield Life(folder, env, json.loads(up_file.read_text()), datetime.now(UTC))
        process.send_signal(signal.SIGINT)
        process.wait(60)
    finally:
        stop(process)
