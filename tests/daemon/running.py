"""A real `proactive up` in a project of its own, as a person would have it in a terminal."""

from __future__ import annotations

import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest

from proactive_prefect.cli.scaffold import new_files
from proactive_prefect.daemon import guard
from proactive_prefect.lifeline import die_with_parent

from ..support import free_port, wait_until_sync

PATIENCE = 600.0  # for a start on a machine that does much else

RULES = """
[proactive]
enabled = true

[defaults]
retries = 0
timeout = "300s"
on_overlap = "allow"

[[heartbeat]]
id = "beat"
every = "60s"
action = { type = "command", argv = ["echo", "beat"] }

[[webhook]]
id = "hook"
action = { type = "python", call = "quick:answer" }

[[webhook]]
id = "sleeper"
action = { type = "command", argv = ["sleep", "600"] }
"""
QUICK = "def answer(ctx):\n    return f'got {ctx.payload}'\n"


def clean_env(home: Path) -> dict[str, str]:
    """An environment without a word about Prefect or this project, whose home is `home`."""
    env = {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "PROACTIVE_"))}
    return {**env, "HOME": str(home), "PREFECT_SERVER_ANALYTICS_ENABLED": "false", "DO_NOT_TRACK": "1"}


@dataclass
class Running:
    """A project folder, and the `up` in it, if it was started."""

    folder: Path
    env: dict[str, str]
    process: subprocess.Popen[bytes] | None = None
    started: float = field(default_factory=time.monotonic)

    @classmethod
    def project(cls, folder: Path, rules: str = RULES) -> Running:
        """A new project with `rules`, on ports of its own."""
        for path, text in new_files():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_text(text)
        (folder / "proactive.toml").write_text(rules)
        (folder / "quick.py").write_text(QUICK)
        env = clean_env(folder)
        env["PREFECT_SERVER_API_PORT"] = str(free_port())
        env["PROACTIVE_GATEWAY_PORT"] = str(free_port())
        return cls(folder, env)

    @property
    def log(self) -> str:
        return (self.folder / "up.log").read_text()

    @property
    def up_file(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.folder / ".proactive" / "up.json").read_text())
        return found

    @property
    def tag(self) -> str:
        return str(json.loads((self.folder / ".proactive" / "up.lock").read_text())["tag"])

    def start(self, *before: str) -> None:
        """Start `up`, and wait until it is ready. `before`: the command that runs it, such as `nohup`."""
        self.started = time.monotonic()
        with (self.folder / "up.log").open("wb") as out:
            self.process = subprocess.Popen(
                [*before, sys.executable, "-m", "proactive_prefect.cli", "up"],
                cwd=self.folder,
                env=self.env,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=_as_in_a_terminal,
            )

        def ready() -> bool:
            assert self.process is not None
            assert self.process.poll() is None, self.log
            path = self.folder / ".proactive" / "up.json"  # one that a killed `up` left is not this one's
            return path.exists() and bool(self.up_file["pids"]["up"] == self.process.pid)

        wait_until_sync(ready, what="`proactive up` is ready", timeout=PATIENCE)
        print(f"\nup: ready after {time.monotonic() - self.started:.1f} s")

    def signal(self, number: int, *, within: float = 60.0) -> float:
        """Send a signal to `up`; the seconds until it had ended."""
        assert self.process is not None
        began = time.monotonic()
        self.process.send_signal(number)
        self.process.wait(within)
        seconds = time.monotonic() - began
        print(f"up: ended {seconds:.1f} s after {signal.Signals(number).name}")
        return seconds

    def kill(self) -> None:
        """End everything, whatever happened."""
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        if (self.folder / ".proactive" / "up.lock").exists():
            guard.kill_tagged(self.tag)

    def proactive(self, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a command in the project's folder, as in another terminal."""
        done = subprocess.run(
            [sys.executable, "-m", "proactive_prefect.cli", *words],
            cwd=self.folder,
            env=self.env,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        assert not check or done.returncode == 0, done.stderr
        return done

    def left_over(self) -> list[str]:
        """What carries the tag of this `up` and lives."""
        return [" ".join(process.cmdline()) for process in guard.tagged(self.tag)]

    def run_states(self) -> Counter[str]:
        """How many runs are in each type of state, by the server's own database."""
        with sqlite3.connect(self.folder / ".proactive" / "prefect" / "prefect.db") as database:
            return Counter(kind for (kind,) in database.execute("SELECT state_type FROM flow_run"))


def start_worker(folder: Path, env: dict[str, str], log: Path) -> subprocess.Popen[bytes]:
    """A `proactive worker` in a session of its own; what it says is in `log`."""
    with log.open("wb") as out:
        return subprocess.Popen(
            [sys.executable, "-m", "proactive_prefect.cli", "worker"],
            cwd=folder,
            env=env,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=die_with_parent,
        )


def _as_in_a_terminal() -> None:
    die_with_parent()
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # the tests themselves may run under `nohup`


def alive(pid: int) -> bool:
    """Whether a process runs."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


needs_ipv6 = pytest.mark.skipif(not _has_ipv6(), reason="IPv6 is off here")
