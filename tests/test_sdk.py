"""Rules from Python code, on a real server."""

from __future__ import annotations

import asyncio
import inspect
import os
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import CancelledError, ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from prefect.blocks.notifications import CustomWebhookNotificationBlock

from proactive_prefect import AsyncProactive, Proactive
from proactive_prefect.deploy.apply import apply_plan
from proactive_prefect.deploy.compile import Project, compile_rules
from proactive_prefect.deploy.plan import make_plan
from proactive_prefect.errors import InputError, UnknownRule
from proactive_prefect.prefect_api import connect
from proactive_prefect.prefect_api.deployments import delete_deployment, read_deployments
from proactive_prefect.rules.models import CronRule, Rulebook
from tests.conftest import Server

ROOT = Path(__file__).parents[1]
ACTION = {"type": "python", "call": "flows.actions:look"}


def heartbeat(rule_id: str, every: str = "1h", **keys: Any) -> dict[str, Any]:
    """A heartbeat as a rules file says it."""
    return {"kind": "heartbeat", "id": rule_id, "every": every, "action": ACTION, **keys}


async def apply_file(project: str, *rules: dict[str, Any]) -> None:
    """What `proactive apply` does with a file that has these rules."""
    book = Rulebook.model_validate({"proactive": {"enabled": True}, "rules": list(rules)})
    made = Project(project, ROOT, "pool-sdk")
    async with connect() as api:
        await apply_plan(api, await make_plan(api, compile_rules(book, made), made))


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A ledger for each test: one of the checkout would remember what other servers had."""
    monkeypatch.setenv("PROACTIVE_HOME", str(tmp_path / "home"))


@pytest.fixture
async def client(prefect_server: Server) -> AsyncIterator[AsyncProactive]:
    """A client whose rules are gone after the test."""
    async with AsyncProactive() as opened:
        yield opened
    async with connect() as api:
        for found in await read_deployments(api):
            if found.name.startswith("sdk-"):
                await delete_deployment(api, found.id)


async def test_a_rule_is_scheduled_changed_and_unscheduled(client: AsyncProactive) -> None:
    """`schedule` deploys one rule or changes it, and leaves the others; `unschedule` removes it."""
    first = await client.schedule(heartbeat("sdk-one"))
    assert (first.rule.id, first.active) == ("sdk-one", True)
    await client.schedule(CronRule.model_validate({"id": "sdk-two", "cron": "0 9 * * *", "action": ACTION}))
    changed = await client.schedule(heartbeat("sdk-one", "2h"))
    assert changed.deployment_id == first.deployment_id
    mine = {found.rule.id: found for found in await client.rules() if found.rule.id.startswith("sdk-")}
    assert mine.keys() == {"sdk-one", "sdk-two"}
    due = await client.get_next_run("sdk-one")
    assert due is not None
    assert datetime.now(UTC) < due <= datetime.now(UTC) + timedelta(hours=2)
    await client.unschedule("sdk-one")
    with pytest.raises(UnknownRule):
        await client.get_next_run("sdk-one")
    assert (await client.get_next_run("sdk-two")) is not None


async def test_an_equal_rule_is_not_written_again(client: AsyncProactive) -> None:
    """Scheduling what is scheduled already changes nothing on the server."""

    async def updated(deployment_id: str) -> str:
        async with connect() as api:
            return str((await api.get(f"/deployments/{deployment_id}"))["updated"])

    found = await client.schedule(heartbeat("sdk-same"))
    before = await updated(found.deployment_id)
    await client.schedule(heartbeat("sdk-same"))
    assert await updated(found.deployment_id) == before


async def test_rules_from_code_and_from_files_leave_each_other_alone(client: AsyncProactive) -> None:
    """An apply of a file keeps what code scheduled; code can't replace or unschedule what a file declares."""
    await client.schedule(heartbeat("sdk-mine"))
    await apply_file("sdk-file", heartbeat("sdk-files"))
    await apply_file("sdk-file", heartbeat("sdk-files", "3h"))
    assert {"sdk-mine", "sdk-files"} <= {found.rule.id for found in await client.rules()}
    with pytest.raises(InputError, match="sdk-file"):
        await client.schedule(heartbeat("sdk-files"))
    with pytest.raises(InputError, match="declared in a rules file of the project 'sdk-file'"):
        await client.unschedule("sdk-files")
    await apply_file("sdk-file")
    assert "sdk-mine" in {found.rule.id for found in await client.rules()}


async def test_a_rule_may_become_one_of_another_kind(client: AsyncProactive) -> None:
    """One deployment is left, of the new kind: ids are unique over all kinds."""
    await client.schedule(heartbeat("sdk-one"))
    await client.schedule({"kind": "cron", "id": "sdk-one", "cron": "0 9 * * *", "action": ACTION})
    async with connect() as api:
        found = [one.flow_name for one in await read_deployments(api) if one.name == "sdk-one"]
    assert found == ["cron"]
    await apply_file("sdk-file", heartbeat("sdk-file-rule"))
    with pytest.raises(InputError, match="heartbeat rule 'sdk-file-rule' already"):
        await client.schedule({"kind": "cron", "id": "sdk-file-rule", "cron": "0 9 * * *", "action": ACTION})


async def test_another_rule_s_missing_channel_is_in_nobody_s_way(client: AsyncProactive) -> None:
    """A rule is refused for its own channel only, and may always be removed."""
    async with connect() as api:
        block = CustomWebhookNotificationBlock(name="sdk", url="https://example.com/")
        await block.save("sdk-gone", overwrite=True)
        await client.schedule(heartbeat("sdk-told", notifications={"on_failure": ["custom-webhook/sdk-gone"]}))
        await api.delete(f"/block_documents/{block._block_document_id}")
    await client.schedule(heartbeat("sdk-one"))
    await client.unschedule("sdk-one")
    with pytest.raises(InputError, match="custom-webhook/sdk-gone"):
        await client.schedule(heartbeat("sdk-told", "2h", notifications={"on_failure": ["custom-webhook/sdk-gone"]}))


async def test_pause_resume_and_run_now(client: AsyncProactive) -> None:
    """A paused rule is not due; run now makes a run that waits for a worker."""
    await client.schedule(heartbeat("sdk-paused"))
    await client.pause("sdk-paused")
    assert await client.get_next_run("sdk-paused") is None
    await client.resume("sdk-paused")
    assert await client.get_next_run("sdk-paused") is not None
    run = await client.trigger_now("sdk-paused")
    assert run.state is not None
    assert run.state.is_scheduled()
    assert (await client.trigger_now("sdk-paused")).id != run.id


async def test_scheduled_skills_are_listed_apart(client: AsyncProactive) -> None:
    """`get_scheduled_skills` has the skills and nothing else."""
    schedule = {"type": "interval", "every": "1h"}
    await client.schedule({"kind": "skill", "id": "sdk-skill", "skill": "look", "schedule": schedule, "action": ACTION})
    await client.schedule(heartbeat("sdk-no-skill"))
    found = {one.rule.id for one in await client.get_scheduled_skills()}
    assert "sdk-skill" in found
    assert "sdk-no-skill" not in found


async def test_missed_runs_are_approved_rescheduled_and_deleted(client: AsyncProactive) -> None:
    """Each missed run is decided once: run now with its original time, run later, or never."""
    found = await client.schedule(heartbeat("sdk-missed"))
    async with connect() as api:
        for _ in range(3):
            made = await api.post(f"/deployments/{found.deployment_id}/create_flow_run", {})
            held = {"type": "PAUSED", "name": "Missed", "state_details": {"pause_reschedule": True}}
            await api.post(f"/flow_runs/{made['id']}/set_state", {"state": held, "force": True})
    one, two, three = await client.missed("sdk-missed")
    assert {item.waits_for for item in (one, two, three)} == {"decision"}
    at = datetime.now(UTC) + timedelta(hours=5)
    for answer in (await client.approve(one), await client.reschedule(str(two.run_id), at)):
        assert (answer.status, answer.via, answer.carried_out) == ("resolved", "sdk", True)
    await client.delete_missed(three)
    async with connect() as api:
        mine = {"deployments": {"id": {"any_": [found.deployment_id]}}}
        runs = {run["id"]: run for run in await api.post("/flow_runs/filter", mine)}
    approved, moved, gone = (runs[str(item.run_id)] for item in (one, two, three))
    assert (approved["state_name"], approved["expected_start_time"][:19]) == ("Resuming", one.due.isoformat()[:19])
    assert (moved["state_name"], gone["state_name"]) == ("Rescheduled", "Cancelled")
    [later] = [run for run in runs.values() if run["expected_start_time"][:19] == at.isoformat()[:19]]
    assert later["state_type"] == "SCHEDULED"
    assert await client.missed("sdk-missed") == []
    for again in (client.approve, client.delete_missed):
        answer = await again(one)
        assert (answer.status, answer.action) == ("already", "approve_backfill_run")
    assert later["id"] is not None
    with pytest.raises(InputError, match="allowed: a run that is Missed"):
        await client.approve(later["id"])
    with pytest.raises(InputError, match="no offset"):
        await client.reschedule(one, datetime(2030, 1, 1))  # noqa: DTZ001 - the naive one is the point


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        (heartbeat("sdk-fast", "5s"), "too often"),
        (heartbeat("sdk-cron", cron="* * * * *"), "exactly one of"),
        ({"kind": "pulse", "id": "sdk-x"}, "kind"),
        (heartbeat("Not A Slug"), "id"),
        (heartbeat("sdk-custom", conditions={"custom": "1 +"}), "CEL"),
    ],
)
async def test_a_wrong_rule_is_refused_with_the_reason(rule: dict[str, Any], said: str, client: AsyncProactive) -> None:
    """What a rules file would refuse, `schedule` refuses, and nothing is deployed."""
    with pytest.raises(InputError, match=said):
        await client.schedule(rule)


async def test_an_unknown_rule_is_answered_with_near_names(client: AsyncProactive) -> None:
    """A misspelt id gets the ids that it may have meant."""
    await client.schedule(heartbeat("sdk-disk-space"))
    with pytest.raises(UnknownRule) as caught:
        await client.trigger_now("sdk-disk-spaec")
    assert "sdk-disk-space" in caught.value.hint


@pytest.fixture
def sync_client(prefect_server: Server) -> Iterator[Proactive]:
    """The same for code that does not await."""
    with Proactive() as opened:
        yield opened


def test_code_that_does_not_await_has_the_same(sync_client: Proactive) -> None:
    """`Proactive` does what `AsyncProactive` does, from several threads at once, and after a close."""
    sync_client.schedule(heartbeat("sdk-sync"))
    try:
        with ThreadPoolExecutor(4) as pool:
            due = list(pool.map(lambda _: sync_client.get_next_run("sdk-sync"), range(4)))
        assert due[0] is not None
        assert len(set(due)) == 1
        sync_client.close()
        assert sync_client.trigger_now("sdk-sync").deployment_id is not None
    finally:
        sync_client.unschedule("sdk-sync")
    with pytest.raises(UnknownRule):
        sync_client.pause("sdk-sync")


def test_a_call_that_waits_ends_with_its_client(sync_client: Proactive) -> None:
    """Another thread closes the client: the call is cancelled, and does not wait for ever."""
    sync_client.rules()
    begun = threading.Event()

    async def endless() -> None:
        begun.set()
        await asyncio.Event().wait()

    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(sync_client._wait, endless())
        assert begun.wait(30)
        sync_client.close()
        with pytest.raises(CancelledError):
            waiting.result(30)


def test_both_clients_have_the_same_methods() -> None:
    """No name is on one of them only, and each has its text."""

    def names(client: type) -> set[str]:
        return {name for name, _ in inspect.getmembers(client, inspect.isfunction) if not name.startswith("_")}

    assert names(Proactive) == names(AsyncProactive)
    assert all(inspect.getdoc(getattr(Proactive, name)) for name in names(Proactive))


def test_without_a_server_nothing_is_started(tmp_path: Path) -> None:
    """Where no Prefect API is named, the client says so; it does not start a server inside the process."""
    env = {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "PROACTIVE_"))}
    program = (
        "from proactive_prefect import Proactive\n"
        "from proactive_prefect.errors import PrefectUnreachable\n"
        "try:\n"
        "    Proactive().rules()\n"
        "except PrefectUnreachable as error:\n"
        "    print(error.hint)\n"
    )
    said = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env={**env, "PREFECT_HOME": str(tmp_path / "prefect"), "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert "proactive up" in said.stdout, said.stderr
