"""The action `command`: a program without a shell, its output, and its end."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from proactive_prefect.errors import ActionError
from proactive_prefect.firing.results import HeartbeatResult

from .acting import DUE, alive, noted, run


def command(*argv: str, **env: str) -> dict[str, Any]:
    return {"type": "command", "argv": list(argv), "env": env}


def script(code: str, *arguments: str, **env: str) -> dict[str, Any]:
    return command(sys.executable, "-c", code, *arguments, **env)


async def test_what_a_command_writes_is_the_message() -> None:
    """Standard output is what the command has to say; standard error is not."""
    result = await run(command("sh", "-c", "echo one; echo two >&2; echo three"))
    assert result == HeartbeatResult(True, "one\nthree", {"exit_code": 0, "stdout_bytes": 10, "stderr_bytes": 4})


async def test_a_command_without_output_is_quiet() -> None:
    """Nothing on standard output is nothing to say, whatever is on standard error."""
    result = await run(command("sh", "-c", "echo fine >&2; echo ' '"))
    assert not result.should_notify
    assert result.message is None


async def test_arguments_are_not_for_a_shell() -> None:
    """What a shell would expand, split or run is passed on to the letter."""
    arguments = ["$HOME", "a b", "; rm -rf x", "`id`", "*", ""]
    result = await run(script("import json, sys; print(json.dumps(sys.argv[1:]))", *arguments))
    assert json.loads(result.message or "") == arguments


async def test_a_failing_command_is_told_with_the_end_of_its_errors() -> None:
    """An exit code other than 0 fails, with the last lines of standard error."""
    with pytest.raises(ActionError) as error:
        await run(command("sh", "-c", "echo out; for n in 1 2 3 4 5 6 7; do echo line $n >&2; done; exit 3"))
    assert error.value.message == "sh: exit code 3: line 3 / line 4 / line 5 / line 6 / line 7"


async def test_a_command_that_only_writes_output_fails_with_that() -> None:
    """Where standard error is empty, the end of standard output explains a failure."""
    with pytest.raises(ActionError, match="sh: exit code 1: broken"):
        await run(command("sh", "-c", "echo broken; exit 1"))


async def test_a_killed_command_names_the_signal() -> None:
    """A program that a signal ended says which."""
    with pytest.raises(ActionError, match="sh: killed by SIGKILL"):
        await run(command("sh", "-c", "kill -9 $$"))


@pytest.mark.parametrize(
    ("argv", "told"),
    [
        (["no-such-program"], "no-such-program cannot be started: No such file or directory"),
        (["/etc/passwd"], "/etc/passwd cannot be started: Permission denied"),
        (["true", "a\0b"], "true cannot be started: embedded null byte"),
        (["true", "x" * 3_000_000], "true cannot be started: "),
    ],
)
async def test_a_command_that_cannot_start_says_why(argv: list[str], told: str) -> None:
    """No such program, no right to run it, or impossible arguments: one line."""
    with pytest.raises(ActionError) as error:
        await run(command(*argv))
    assert error.value.message.startswith(told)


async def test_a_command_knows_its_run_and_reads_the_payload() -> None:
    """The run is in PROACTIVE_* variables, a webhook's payload on standard input as it came; then the input ends."""
    code = "import json, os, sys; print(json.dumps([sys.stdin.read(), dict(os.environ)]))"
    result = await run(script(code, MINE="yes"), kind="webhook", payload_text='{"a": "é"}', attempt=2)
    payload, env = json.loads(result.message or "")
    assert payload == '{"a": "é"}'
    known = {name: env[f"PROACTIVE_{name}"] for name in ("RULE", "KIND", "DUE", "RUN_ID", "ATTEMPT")}
    assert known == {"RULE": "r", "KIND": "webhook", "DUE": DUE.isoformat(), "RUN_ID": "run-1", "ATTEMPT": "2"}
    assert env["MINE"] == "yes"
    assert "PATH" in env


async def test_a_command_need_not_read_its_payload() -> None:
    """A large payload that nobody reads is no error."""
    result = await run(command("echo", "done"), payload_text=json.dumps("x" * 1_000_000))
    assert result.message == "done"


async def test_output_is_logged_as_it_comes(caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    """A line is in the run's log while the command still runs."""
    caplog.set_level("INFO")
    go = tmp_path / "go"
    code = f"import os, time\nprint('first', flush=True)\nwhile not os.path.exists({str(go)!r}): time.sleep(0.01)"
    task = asyncio.create_task(run(script(code)))
    async with asyncio.timeout(60):
        while "first" not in caplog.messages:
            await asyncio.wait([task], timeout=0.05)
    assert not task.done()
    go.touch()
    assert (await task).message == "first"


async def test_endless_output_is_bounded(caplog: pytest.LogCaptureFixture) -> None:
    """A message has the last 64 KiB of the output and says so; the log has the first."""
    caplog.set_level("INFO")
    result = await run(script("for n in range(300_000): print('line', n)"))
    message = result.message or ""
    assert message.startswith("… (the last 64 KiB of 3,488,890 bytes)\n")
    assert message.endswith("line 299999")
    assert len(message) < 66_000
    assert sum(map(len, caplog.messages)) < 70_000
    assert "line 0" in caplog.messages
    assert result.metadata["stdout_bytes"] == 3_488_890


async def test_bytes_that_are_no_text_do_no_harm() -> None:
    """Broken UTF-8 and control characters, which databases refuse, are replaced."""
    result = await run(script(r"import os; os.write(1, b'a\xff\x00\x1b[1mb\r\n\tc')"))
    assert result.message == "a��\ufffd[1mb\r\n\tc"


_FAMILY = """
import json, os, signal, subprocess, sys, time
from pathlib import Path
signal.signal(signal.SIGTERM, signal.SIG_IGN)
sleeper = [sys.executable, "-c", "import signal, time; signal.signal(15, signal.SIG_IGN); time.sleep(600)"]
near, far = subprocess.Popen(sleeper), subprocess.Popen(sleeper, start_new_session=True)
new = Path(sys.argv[1] + ".new")
new.write_text(json.dumps([os.getpid(), near.pid, far.pid]))
new.rename(sys.argv[1])
"""


async def test_a_cancelled_command_is_ended_with_all_it_started(tmp_path: Path) -> None:
    """Also when all of them ignore SIGTERM, and one has made a session of its own."""
    note = tmp_path / "pids"
    task = asyncio.create_task(run(script(_FAMILY + "time.sleep(600)", str(note))))
    pids = await noted(note)
    assert alive(pids) == pids
    began = time.monotonic()
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    assert alive(pids) == []
    assert time.monotonic() - began < 8


async def test_a_command_gets_time_to_clean_up(tmp_path: Path) -> None:
    """A cancelled program gets SIGTERM first, and two seconds to end by itself."""
    note, cleaned = tmp_path / "pids", tmp_path / "cleaned"
    code = f"trap 'touch {cleaned}; exit 0' TERM; echo [$$] > {note}.new; mv {note}.new {note}"
    code += "; while :; do sleep 0.1; done"
    task = asyncio.create_task(run(command("sh", "-c", code)))
    await noted(note)
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    assert cleaned.exists()


async def test_what_a_command_leaves_behind_is_ended(tmp_path: Path) -> None:
    """A command that ends while its children go on does not leave them to the machine."""
    note = tmp_path / "pids"
    await run(script(_FAMILY, str(note)))
    assert alive(await noted(note)) == []


async def test_a_secret_argument_is_masked(monkeypatch: pytest.MonkeyPatch) -> None:
    """References in argv and env are filled in for the program, and masked in what it says."""
    monkeypatch.setenv("TOKEN", "canary-token")
    code = "import os, sys; print(len(sys.argv[1]), len(os.environ['KEY'])); sys.exit(os.environ['KEY'])"
    with pytest.raises(ActionError) as error:
        await run(script(code, "${env:TOKEN}", KEY="<${env:TOKEN}>"))
    assert error.value.message.endswith("exit code 1: <***>")
