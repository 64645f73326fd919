"""Actions that the tests run: well behaved, badly behaved, and hostile."""

from __future__ import annotations

import asyncio
import ctypes
import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

from proactive_prefect.firing.results import Context, HeartbeatResult

_NEVER = threading.Event()


def greet(ctx: Context) -> str:
    """Print, log, and say something."""
    print("printed")
    print("complained", file=sys.stderr)
    ctx.logger.warning("logged %d%%", 100)
    return f"hello from {ctx.rule_id}"


async def greet_async(ctx: Context) -> str:
    """Say where it runs."""
    ctx.logger.warning("logged %d%%", 100)
    return f"hello from process {os.getpid()}"


def about(ctx: Context) -> HeartbeatResult:
    """Everything that the context holds."""
    known = {
        name: getattr(ctx, name) for name in ("rule_id", "kind", "run_id", "attempt", "owner", "config", "payload")
    }
    known |= {"due": ctx.due.isoformat(), "payload_text": ctx.payload_text, "prefect": "prefect" in sys.modules}
    return HeartbeatResult(False, None, known | {"pid": os.getpid()})


def agent(prompt: str, ctx: Context) -> str:
    """An agent that repeats its prompt."""
    return f"{prompt!r} and {ctx.payload!r}"


def quiet(ctx: Context) -> None:
    """Nothing to say."""


def number(ctx: Context) -> Any:
    """An answer of a wrong type."""
    return 42


def unspeakable(ctx: Context) -> HeartbeatResult:
    """Metadata that is not JSON."""
    return HeartbeatResult(True, "x", {"lock": threading.Lock()})


def fail(ctx: Context) -> None:
    """Raise, with the configured word in the message."""
    raise ValueError(f"no luck\nwith {ctx.config.get('word')}")


async def fail_async(ctx: Context) -> None:
    """Raise, with the configured word in the message."""
    raise ValueError(f"no luck\nwith {ctx.config.get('word')}")


def leave(ctx: Context) -> None:
    """End the process as a script would."""
    sys.exit("I quit")


def crash(ctx: Context) -> None:
    """Die of a segmentation fault."""
    os.kill(os.getpid(), signal.SIGSEGV)


def hang(ctx: Context) -> None:
    """Never come back, with a child process in the group and one that has made a session of its own."""
    _note(ctx)
    _NEVER.wait()


def hang_deaf(ctx: Context) -> None:
    """Never come back, and ignore SIGTERM."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    _note(ctx)
    while True:
        _NEVER.wait()


def hang_in_c(ctx: Context) -> None:
    """Never come back from C, with the interpreter's lock held: no Python code of this process runs any more."""
    _note(ctx)
    ctypes.PyDLL(None).sleep(600)


async def hang_async(ctx: Context) -> None:
    """Wait for ever, as an async function should."""
    await asyncio.Event().wait()


async def block(ctx: Context) -> None:
    """Wait for ever, as an async function should not."""
    while True:
        try:
            _NEVER.wait()
        except Exception:  # the worst of all: one that goes on whatever happens
            continue


async def spin(ctx: Context) -> None:
    """Be busy for ever, without a pause for others."""
    while True:
        len(ctx.rule_id)


def crowd(ctx: Context) -> str:
    """Log from many threads at once, and leave them running."""

    def chatter() -> None:
        while True:
            ctx.logger.info("x" * 5_000)

    for _ in range(4):
        threading.Thread(target=chatter).start()
    return "done"


def shout(ctx: Context) -> str:
    """Print a lot."""
    for line in range(ctx.config["lines"]):
        print(f"line {line} " + "x" * 80)
    return "done"


def ramble(ctx: Context) -> str:
    """Answer with more than anybody wants to read."""
    length: int = ctx.config["length"]
    return "x" * length


def spill(ctx: Context) -> HeartbeatResult:
    """Tell a secret wherever something can be told."""
    secret = ctx.config["secret"]
    print(f"out {secret}")
    print(f"err {secret}", file=sys.stderr)
    ctx.logger.info("log %s", secret)
    ctx.logger.info("json %s", json.dumps({"secret": secret}))
    return HeartbeatResult(True, f"message {secret}", {"key": [secret], secret: 1})


async def spill_async(ctx: Context) -> None:
    """Tell a secret in a log line with a traceback, and in the error itself."""
    try:
        raise KeyError(ctx.config["secret"])
    except KeyError:
        ctx.logger.exception("found")
    raise RuntimeError(ctx.config["secret"])


def _note(ctx: Context) -> None:
    """Start two more processes, and write the ids of all three where the test reads them."""
    sleeper = [sys.executable, "-c", "import time; time.sleep(600)"]
    near, far = subprocess.Popen(sleeper), subprocess.Popen(sleeper, start_new_session=True)
    note = Path(ctx.config["note"])
    note.with_suffix(".new").write_text(json.dumps([os.getpid(), near.pid, far.pid]))
    note.with_suffix(".new").rename(note)


not_callable = "text"
