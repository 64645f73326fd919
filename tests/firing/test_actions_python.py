"""The actions `python` and `prompt`: what a function is given, may answer, and how it is ended."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from proactive_prefect.errors import ActionError
from proactive_prefect.firing.results import QUIET, Context, HeartbeatResult, to_result

from ..support import wait_until
from .acting import DUE, alive, context, noted, run, sample


def test_a_text_notifies_and_none_is_quiet() -> None:
    """A str is a message to notify with, None is quiet, and a HeartbeatResult is taken as it is."""
    whole = HeartbeatResult(False, "kept", {"a": [1, None]})
    assert to_result("disk is full") == HeartbeatResult(True, "disk is full", {})
    assert to_result(None) == QUIET
    assert to_result(whole) is whole


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (42, "pkg:f returned a value of type int; allowed: a HeartbeatResult, a str (to notify), or None (quiet)"),
        ({"should_notify": True}, "type dict"),
        (HeartbeatResult("yes"), "should_notify is of type str; allowed: a bool"),  # type: ignore[arg-type]
        (HeartbeatResult(True, 5), "message is of type int; allowed: a str or None"),  # type: ignore[arg-type]
        (HeartbeatResult(True, "x", [1]), "metadata is of type list"),  # type: ignore[arg-type]
        (HeartbeatResult(True, "x", {"a": DUE}), "metadata is not JSON"),
        (HeartbeatResult(True, "x", {"a": float("nan")}), "metadata is not JSON"),
    ],
)
def test_any_other_answer_is_an_error_that_says_so(answer: object, told: str) -> None:
    """An answer of a wrong type names the callable, what it returned and what is allowed."""
    with pytest.raises(ActionError) as error:
        to_result(answer, "pkg:f")
    assert error.value.message.startswith("pkg:f returned")
    assert told in error.value.message


@pytest.mark.parametrize(
    ("text", "payload"),
    [
        (None, None),
        ("", ""),
        ('{"a": [1]}', {"a": [1]}),
        ("not json", "not json"),
        ("NaN", "NaN"),
        ("[" * 100_000, "[" * 100_000),
        ("9" * 5_000, "9" * 5_000),
    ],
)
def test_a_payload_is_parsed_if_it_is_json_and_text_otherwise(text: str | None, payload: object) -> None:
    """Whatever a caller sends, an action gets it: as JSON where it is, else to the letter."""
    assert context(payload_text=text).payload == payload


def test_a_context_shows_neither_config_nor_payload() -> None:
    """Printing a context tells no secret."""
    assert "canary" not in repr(context(config={"key": "canary"}, payload_text="canary"))


async def test_a_sync_function_gets_the_whole_context_in_a_process_of_its_own() -> None:
    """A sync function runs in a child process, without Prefect's import, and knows everything of its run."""
    result = await run(
        sample("about", depth={"a": 1}), kind="webhook", attempt=3, owner="ann", payload_text='{"b": "é\\ud800"}'
    )
    assert not result.should_notify
    assert result.metadata.pop("pid") != os.getpid()
    assert result.metadata == {
        "rule_id": "r",
        "kind": "webhook",
        "run_id": "run-1",
        "attempt": 3,
        "owner": "ann",
        "config": {"depth": {"a": 1}},
        "payload": {"b": "é�"},  # a lone surrogate is no text that could be kept
        "payload_text": '{"b": "é\\ud800"}',
        "due": DUE.isoformat(),
        "prefect": False,
    }


async def test_what_a_sync_function_prints_and_logs_is_in_the_log_of_the_run(caplog: pytest.LogCaptureFixture) -> None:
    """Standard output, standard error and log lines of a child process arrive at the run's logger, levels kept."""
    caplog.set_level("INFO")
    result = await run(sample("greet"))
    assert result == HeartbeatResult(True, "hello from r", {})
    heard = {record.getMessage(): record.levelname for record in caplog.records}
    assert heard["printed"] == heard["complained"] == "INFO"
    assert heard["logged 100%"] == "WARNING"


async def test_an_async_function_runs_in_the_process_of_the_run() -> None:
    """An async function needs no process of its own."""
    assert (await run(sample("greet_async"))).message == f"hello from process {os.getpid()}"


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("number", "tests.firing.samples:number returned a value of type int; allowed: a HeartbeatResult"),
        ("unspeakable", "metadata is not JSON"),
        ("fail", "tests.firing.samples:fail: ValueError: no luck with rain (tests/firing/samples.py:"),
        ("fail_async", "tests.firing.samples:fail_async: ValueError: no luck with rain (tests/firing/samples.py:"),
        ("leave", "tests.firing.samples:leave: SystemExit: I quit"),
        ("crash", "tests.firing.samples:crash: its process ended without an answer (killed by SIGSEGV)"),
        ("nowhere", "tests.firing.samples:nowhere: tests.firing.samples has no 'nowhere'"),
        ("not_callable", "tests.firing.samples:not_callable is of type str; allowed: a function"),
    ],
)
async def test_a_failure_is_one_line_that_names_the_callable(name: str, told: str) -> None:
    """Whatever a function does wrong is told in one line, with the place where it happened."""
    with pytest.raises(ActionError) as error:
        await run(sample(name, word="rain"))
    assert told in error.value.message
    assert "\n" not in error.value.message


async def test_the_traceback_of_a_failure_is_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    """The author of a sync function finds its traceback in the run's log."""
    with pytest.raises(ActionError):
        await run(sample("fail"))
    [text] = [record.getMessage() for record in caplog.records if "Traceback" in record.getMessage()]
    assert "in fail" in text
    assert "child.py" not in text


async def test_a_module_that_is_not_there_is_named() -> None:
    """A misspelt module is told by its name, with where it was looked for."""
    with pytest.raises(ActionError, match=r"nowhere.at.all:f: there is no module 'nowhere'") as error:
        await run({"type": "python", "call": "nowhere.at.all:f"})
    assert os.getcwd() in error.value.hint


async def _ended_at_timeout(action: dict[str, Any], note: Path, within: float) -> None:
    task = asyncio.create_task(run(action))
    pids = await noted(note)
    assert alive(pids) == pids
    began = time.monotonic()
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    assert alive(pids) == []
    assert time.monotonic() - began < within


@pytest.mark.parametrize("name", ["hang", "hang_deaf", "hang_in_c"])
async def test_a_hung_sync_function_is_ended_with_all_it_started(name: str, tmp_path: Path) -> None:
    """Also one that ignores SIGTERM, one that hangs in C, and children that made sessions of their own."""
    note = tmp_path / "pids"
    await _ended_at_timeout(sample(name, note=str(note)), note, within=8)


async def test_a_hung_async_function_is_cancelled() -> None:
    """An async function that waits gets the cancellation."""
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.5):
            await run(sample("hang_async"))


async def test_a_second_cancellation_leaves_nothing_running(tmp_path: Path) -> None:
    """Cancelled again while it waits for a process to end, an action still leaves nothing behind."""
    note = tmp_path / "pids"
    task = asyncio.create_task(run(sample("hang_deaf", note=str(note))))
    pids = await noted(note)
    task.cancel()
    await wait_until(lambda: alive(pids[1:2]) == [], what="SIGTERM to end the child that listens to it")
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    await wait_until(lambda: alive(pids) == [], what="everything to be ended", timeout=5)


async def test_an_async_function_that_blocks_is_interrupted_and_told_its_line(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A blocking call in an async function keeps every timeout from firing: it is broken off a little later."""
    began = time.monotonic()
    with pytest.raises(ActionError, match=r"blocked the event loop for \d+ s at tests/firing/samples.py:") as error:
        await run(sample("block"), timeout="1s")
    assert isinstance(error.value, TimeoutError)
    assert "_NEVER.wait()" in error.value.message
    assert time.monotonic() - began < 20
    assert any("The event loop has stood still" in record.getMessage() for record in caplog.records)


async def test_a_busy_async_function_is_interrupted_in_any_thread() -> None:
    """Also where the event loop is not in the process's first thread, which gets no signals."""
    with pytest.raises(ActionError, match=r"blocked the event loop for \d+ s at tests/firing/samples.py:"):
        await asyncio.to_thread(asyncio.run, run(sample("spin"), timeout="500ms"))


async def test_threads_that_a_function_leaves_neither_garble_its_answer_nor_outlive_it() -> None:
    """A function that returns while its threads still log: its answer is read, and its process ends."""
    assert (await run(sample("crowd"))).message == "done"


_KILLED = """
import asyncio
from tests.firing.acting import run

async def main():
    await asyncio.gather(*map(run, {actions!r}))

asyncio.run(main())
"""


async def test_nothing_outlives_a_run_that_is_killed(tmp_path: Path) -> None:
    """When the run's process is killed with SIGKILL, its action and all it started are gone within two seconds."""
    names = ["hang", "hang_deaf", "hang_in_c"]
    script = _KILLED.format(actions=[sample(name, note=str(tmp_path / name)) for name in names])
    with subprocess.Popen([sys.executable, "-c", script]) as parent:  # noqa: ASYNC220 - a start, not a wait
        pids = [pid for name in names for pid in await noted(tmp_path / name)]
        assert alive(pids) == pids
        began = time.monotonic()
        parent.send_signal(signal.SIGKILL)
        await wait_until(lambda: not alive(pids), what=f"the end of {pids}", timeout=10, every=0.02)
        assert time.monotonic() - began < 2


async def test_an_async_function_that_hangs_in_c_cannot_keep_its_run_for_ever(tmp_path: Path) -> None:
    """With the interpreter's lock held nothing of Python runs any more; the process ends all the same."""
    script = """
import asyncio, ctypes, logging
from proactive_prefect.firing.watch import watch

async def main():
    with watch(0.2, logging.getLogger(), slack=0.2, last_resort=1.0):
        await asyncio.sleep(0.1)
        ctypes.PyDLL(None).sleep(600)

asyncio.run(main())
"""
    ended = await asyncio.to_thread(
        subprocess.run, [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False
    )
    assert ended.returncode == 1
    assert "Timeout" in ended.stderr
    assert 'File "<string>", line 8 in main' in ended.stderr


async def test_output_without_end_is_bounded(caplog: pytest.LogCaptureFixture) -> None:
    """A function that prints without end fills neither the log nor the memory; the log says that it was cut."""
    caplog.set_level("INFO")
    await run(sample("shout", lines=100_000))
    logged = [record.getMessage() for record in caplog.records]
    assert sum(map(len, logged)) < 80_000
    assert logged[0].startswith("line 0 ")
    assert "is not logged" in logged[-1]


async def test_an_answer_of_absurd_length_is_refused() -> None:
    """An answer longer than 4 MiB is an error, not a run that fills the memory."""
    with pytest.raises(ActionError, match="the answer is longer than 4 MiB"):
        await run(sample("ramble", length=5_000_000))


async def test_a_prompt_goes_to_the_agent_to_the_letter_and_the_payload_beside_it() -> None:
    """A prompt is no template, and a stranger's payload is never part of it."""
    action = {"type": "prompt", "prompt": "Do {{ this }} ${env:HOME}", "agent": "tests.firing.samples:agent"}
    result = await run(action, kind="webhook", payload_text="do that instead")
    assert result.message == "'Do {{ this }} ${env:HOME}' and 'do that instead'"


async def test_a_prompt_without_an_agent_says_how_to_name_one() -> None:
    """A prompt needs an agent, and the error says where to name it."""
    with pytest.raises(ActionError, match=r"the prompt has no agent; allowed: agent = ") as error:
        await run({"type": "prompt", "prompt": "hello"})
    assert "agent(prompt, ctx)" in error.value.hint


def test_a_context_can_be_built_without_prefect() -> None:
    """A user's module of actions costs no import of Prefect."""
    code = "import sys; import proactive_prefect; proactive_prefect.Context; sys.exit('prefect' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    assert Context.__module__ == "proactive_prefect.firing.results"
