"""What a run ends as: executed by Prefect's engine on a real server."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from ..conftest import Server
from .stock import StockProject, make_folder, stock_project, text_of


@pytest.fixture
async def stock(prefect_server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[StockProject]:
    """A project whose runs are executed here."""
    make_folder(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    async with stock_project(prefect_server, tmp_path, f"pool-{tmp_path.name}"[:60]) as project:
        yield project


def python(call: str, **config: object) -> dict[str, object]:
    return {"type": "python", "call": f"stock_actions:{call}", "config": config}


async def test_an_action_with_something_to_say_completes_with_an_artifact(stock: StockProject) -> None:
    """A run that notifies is Completed with its message, and leaves one markdown artifact keyed by the rule."""
    await stock.apply({"id": "disk_1", "kind": "heartbeat", "every": "1h", "action": python("say")})
    run, state = await stock.fire("disk_1")
    assert (state.name, state.message) == ("Completed", "**all well** `disk_1`")
    [artifact] = await stock.artifacts(run)
    assert artifact["key"] == "heartbeat-disk-1"
    assert artifact["type"] == "markdown"
    assert artifact["data"].startswith("**all well** `disk_1`")
    assert '"attempt": 1' in artifact["data"]


async def test_a_quiet_action_leaves_no_trace_but_its_state(stock: StockProject) -> None:
    """None from the action gives Quiet: no artifact, no message."""
    await stock.apply({"id": "calm", "action": python("quiet")})
    run, state = await stock.fire("calm")
    assert (state.name, state.type, state.message) == ("Quiet", "COMPLETED", None)
    assert await stock.artifacts(run) == []
    assert len(stock.lines("quiet-calm")) == 1


async def test_a_failing_action_is_tried_as_often_as_the_rule_says(stock: StockProject) -> None:
    """Two retries: the third attempt succeeds, and only then is there a message."""
    await stock.apply({"id": "luck", "action": python("fail_twice"), "retries": 2, "retry_delay": ["100ms", "200ms"]})
    _, state = await stock.fire("luck")
    assert (state.name, state.message) == ("Completed", "attempt 3")
    assert [len(stock.lines(f"attempt-{n}")) for n in (1, 2, 3, 4)] == [1, 1, 1, 0]


async def test_a_failure_is_told_in_one_line(stock: StockProject) -> None:
    """After its retries the run is Failed, with the error in the state's message; nothing is left to read besides."""
    await stock.apply({"id": "gloom", "action": python("fail"), "retries": 1, "retry_delay": "100ms"})
    run, state = await stock.fire("gloom")
    assert state.name == "Failed"
    assert state.message is not None
    assert "ValueError: no luck" in state.message
    assert state.message.endswith("(2 attempts)")
    assert "\n" not in state.message
    assert await stock.artifacts(run) == []


@pytest.mark.parametrize("call", ["hang", "hang_async"])
async def test_an_action_past_its_timeout_is_ended(stock: StockProject, call: str) -> None:
    """A hung action, sync or async, is ended at the timeout of one attempt; the run is TimedOut, of type Failed."""
    rule_id = f"rule-{call.replace('_', '-')}"
    await stock.apply({"id": rule_id, "action": python(call), "retries": 0, "timeout": "2s"})
    run, state = await stock.fire(rule_id)
    assert (state.name, state.type) == ("TimedOut", "FAILED")
    assert state.message == "The action did not end within 2 s"
    assert stock.processes("proactive_prefect.firing.child", str(run.id)) == []


async def test_nothing_of_the_payload_is_stored_but_the_parameter(stock: StockProject) -> None:
    """The payload is on the run itself; neither task runs, logs nor states repeat it."""
    await stock.apply({"id": "echo", "action": python("echo")})
    run, state = await stock.fire("echo", payload='{"word": "hi", "secret": "s3cr3t-w0rd"}', cause="webhook")
    assert (state.name, state.message) == ("Completed", "got hi")
    assert "s3cr3t" not in text_of(await stock.task_runs(run))
    assert "s3cr3t" not in await stock.logs(run)
    assert "s3cr3t" not in text_of(await stock.artifacts(run))


async def test_a_rule_that_this_version_cannot_read_fails_clearly(stock: StockProject) -> None:
    """A snapshot that is no rule ends the run as Failed, without repeating what was in it."""
    await stock.apply({"id": "odd", "action": python("quiet")})
    run, state = await stock.fire("odd", parameters={"rule": '{"kind": "webhook", "token": "s3cr3t"}'})
    assert state.name == "Failed"
    assert state.message is not None
    assert "not a rule of this version" in state.message
    assert "s3cr3t" not in state.message + await stock.logs(run)
