"""The default rules file and what it runs: useful on any machine, and silent while nothing is wrong."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prefect.client.schemas.objects import State
from prefect.states import Completed, Failed, Pending, Running

from flows.actions import plain, remember, size, stale_files, system_health
from proactive_prefect.firing.results import Context, HeartbeatResult
from proactive_prefect.prefect_api import PrefectApi, connect
from proactive_prefect.prefect_api.runs import create_run, set_state
from proactive_prefect.rules.actions import PythonAction
from proactive_prefect.rules.models import Rulebook
from proactive_prefect.rules.read import read_rules
from proactive_prefect.rules.schema import json_schema

from ..conftest import Server
from ..firing.acting import run

ROOT = Path(__file__).parents[2]
CALM = {"disk_percent": 101, "memory_percent": 101, "load_per_cpu": 1e9}


def context(kind: str = "heartbeat", due: datetime | None = None, **known: Any) -> Context:
    return Context(**{"rule_id": "r", "kind": kind, "due": due or datetime.now(UTC), "run_id": "x", **known})


def flow_action(name: str, **config: Any) -> dict[str, Any]:
    return {"type": "python", "call": f"flows.actions:{name}", "config": config}


@pytest.fixture
def rules() -> Rulebook:
    """The default rules file, read."""
    return read_rules(ROOT / "deployments" / "proactive.toml")


def test_the_default_rules_are_one_of_each_kind_and_on(rules: Rulebook) -> None:
    """Somebody who starts the project sees each kind of rule, and something fires within a minute."""
    assert rules.proactive.enabled
    assert {rule.kind for rule in rules.rules} == {"heartbeat", "cron", "webhook", "skill"}
    heartbeat = rules.get("system-health")
    assert heartbeat is not None
    assert heartbeat.kind == "heartbeat"
    assert heartbeat.every == timedelta(minutes=1)
    skill = rules.get("stale-files")
    assert skill is not None
    assert skill.conditions.active_hours is not None
    webhook = rules.get("notes")
    assert webhook is not None
    assert webhook.on_overlap == "allow"


def test_the_default_rules_need_neither_network_nor_keys(rules: Rulebook) -> None:
    """Every default rule calls a function of this project, and refers to no secret."""
    for rule in rules.rules:
        assert isinstance(rule.action, PythonAction)
        assert rule.action.call.startswith("flows.actions:")
        assert "${" not in rule.model_dump_json()


def test_the_default_rules_name_their_schema() -> None:
    """The first line makes editors complete and check the file."""
    first = (ROOT / "deployments" / "proactive.toml").read_text().splitlines()[0]
    assert first == "#:schema ./proactive.schema.json"


def test_the_schema_beside_the_default_rules_is_that_of_the_models() -> None:
    """What editors check the file with is what `proactive schema` prints."""
    kept = json.loads((ROOT / "deployments" / "proactive.schema.json").read_text())
    assert kept == json_schema(), "write it anew: proactive schema > deployments/proactive.schema.json"


def test_the_actions_are_imported_without_prefect() -> None:
    """The module of actions is light: a sync action's process does not wait for Prefect's import."""
    code = "import sys; import flows.actions; sys.exit('prefect' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


async def test_a_healthy_machine_is_quiet(prefect_server: Server) -> None:
    """Nothing wrong: no message, but the numbers are kept."""
    result = await system_health(context(config=CALM | {"failed_within_minutes": 0}))
    assert not result.should_notify
    assert result.message is None
    assert set(result.metadata) == {"disk_percent", "memory_percent", "load_per_cpu"}


async def test_each_limit_that_is_passed_is_a_problem(prefect_server: Server) -> None:
    """Disk, memory and load beyond their limits are told, each in a line."""
    config = {"disk_percent": 0, "memory_percent": 0, "load_per_cpu": 0, "failed_within_minutes": 0}
    result = await run(flow_action("system_health", **config))
    assert result.should_notify
    lines = (result.message or "").splitlines()
    assert lines[0] == "3 problems:"
    assert re.match(r"- disk / is \d+% full: [\d.]+ .B left", lines[2])
    assert re.match(r"- memory is \d+% used: ", lines[3])
    assert re.match(r"- the load is [\d.]+ for each CPU", lines[4])


class History:
    """A deployment with runs that ended in given states."""

    def __init__(self, api: PrefectApi, deployment_id: str, name: str) -> None:
        self.api, self.deployment_id, self.name = api, deployment_id, name

    @classmethod
    async def make(cls, api: PrefectApi, name: str) -> History:
        flow_id = await api.client.create_flow_from_name(name)
        return cls(api, str(await api.client.create_deployment(flow_id, name)), name)

    async def add(self, state: State[Any], name: str) -> str:
        """A run of that name that has ended in that state."""
        run = await create_run(self.api, self.deployment_id, idempotency_key=str(uuid4()), name=name)
        for step in (Pending(), Running(), state):
            await set_state(self.api, run.id, step)
        return str(run.id)


async def test_a_failed_run_is_told_once_with_a_link(prefect_server: Server) -> None:
    """A run that failed since the last heartbeat is named with its message; the heartbeat after that is quiet."""
    async with connect() as api:
        history = await History.make(api, f"h{uuid4().hex[:8]}")
        run_id = await history.add(Failed(message="the <b>disk</b> is [full](http://x)"), "sad *run*")
        await history.add(Completed(), "happy-run")
    due = datetime.now(UTC)
    config = CALM | {"failed_within_minutes": 1}
    result = await system_health(context(due=due, config=config))
    [line] = [line for line in (result.message or "").splitlines() if run_id in line]
    assert f"[sad \\*run\\*]({prefect_server.api_url.removesuffix('/api')}/runs/flow-run/{run_id})" in line
    assert r"the \<b\>disk\</b\> is \[full\]\(http://x\)" in line
    assert "happy" not in (result.message or "")
    later = await system_health(context(due=due + timedelta(minutes=1), config=config))
    assert run_id not in (later.message or "")


async def test_the_daily_summary_counts_by_rule_and_outcome(prefect_server: Server) -> None:
    """Each rule's runs by the name of their state, and every failed one with a link; it always notifies."""
    name = f"h{uuid4().hex[:8]}"
    async with connect() as api:
        history = await History.make(api, name)
        for _ in range(3):
            await history.add(Completed(name="Quiet"), "calm")
        failed = await history.add(Failed(message="boom"), "bad-run")
        await create_run(api, history.deployment_id, idempotency_key=str(uuid4()), name="not-yet")
    result = await run(flow_action("daily_summary"), kind="cron", due=datetime.now(UTC))
    message = result.message or ""
    assert re.match(r"[\d,]+ runs in the 24 hours to \d{4}-\d\d-\d\d \d\d:\d\d UTC: ", message)
    assert f"| {name} | 4 | Quiet 3, Failed 1 |" in message
    assert f"/runs/flow-run/{failed}): Failed, boom" in message
    assert "not-yet" not in message
    long_ago = await run(flow_action("daily_summary"), kind="cron", due=datetime(2020, 1, 1, tzinfo=UTC))
    assert long_ago == HeartbeatResult(
        True,
        "0 runs in the 24 hours to 2020-01-01 00:00 UTC: nothing ran.",
        {"runs": 0, "failed": 0, "outcomes": {}},
    )


@settings(deadline=None)
@given(st.text(st.sampled_from("`~<>ab\n"), max_size=60) | st.text())
def test_a_payload_stays_text_whatever_is_in_it(payload: str) -> None:
    """No run of backticks in a payload can close the fence around it, and nothing after it is markup."""
    message = remember(context("webhook", payload_text=payload))
    lines = message.split("\n")
    fence = re.match("`+", lines[2])
    assert fence is not None
    assert lines[-1] == fence[0]
    assert not any(line.strip().startswith(fence[0]) for line in lines[3:-1])


def test_a_payload_is_shown_as_json_or_as_text() -> None:
    """JSON is laid out, text is kept to the letter, and a call without a payload says so."""
    assert remember(context("webhook", payload_text='{"a": "é"}')).endswith('```json\n{\n  "a": "é"\n}\n```')
    assert remember(context("webhook", payload_text="<b>hi</b>")) == "Called with 9 bytes:\n\n```\n<b>hi</b>\n```"
    assert remember(context("webhook")) == "Called without a payload."


def test_a_long_payload_is_cut_and_says_so() -> None:
    """An artifact has at most 64 KiB of a payload."""
    message = remember(context("webhook", payload_text="x" * 100_000))
    assert message.endswith("```\n\nCut: 34,464 more characters.")
    assert len(message) < 66_000


def test_stale_files_are_reported_biggest_first(tmp_path: Path) -> None:
    """Old files of the endings given; fresh ones, others, links and hidden folders are left out; none is deleted."""
    old = time.time() - 8 * 86400
    for name, length, at in (
        ("a.log", 1000, old),
        ("sub/b.tmp", 5000, old),
        ("fresh.log", 9000, None),
        ("keep.txt", 9000, old),
        (".git/c.log", 9000, old),
    ):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"x" * length)
        if at is not None:
            os.utime(path, (at, at))
    (tmp_path / "loop").symlink_to(tmp_path)
    result = stale_files(context("skill", config={"path": str(tmp_path), "at_least_mb": 0}))
    lines = (result.message or "").splitlines()
    assert lines[0].startswith("2 files, 6.0 kB, were not touched for 7 days below ")
    assert [line.split(" ")[:3] for line in lines[2:]] == [["-", "5.0", "kB"], ["-", "1.0", "kB"]]
    assert result.metadata == {"files": 2, "bytes": 6000}
    assert (tmp_path / "a.log").exists()
    assert not stale_files(context("skill", config={"path": str(tmp_path)})).should_notify
    assert not stale_files(context("skill", config={"path": str(tmp_path), "days": 30, "at_least_mb": 0})).should_notify


async def test_a_sync_action_of_the_project_runs_in_its_own_process(tmp_path: Path) -> None:
    """The skill as a rule runs it."""
    result = await run(flow_action("stale_files", path=str(tmp_path)), kind="skill")
    assert result == HeartbeatResult(False, None, {"files": 0, "bytes": 0})


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 bytes"), (999, "999 bytes"), (1000, "1.0 kB"), (1.5e9, "1.5 GB"), (2e15, "2000.0 TB")]
)
def test_sizes_are_for_people(count: float, text: str) -> None:
    """Sizes in the largest unit that fits."""
    assert size(count) == text


def test_markup_is_told_as_text() -> None:
    """Names and messages are shown as they are, in one line."""
    assert plain("a|b\n<i>[x](y)`") == r"a\|b \<i\>\[x\]\(y\)\`"
