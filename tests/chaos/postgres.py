"""A PostgreSQL server of a test's own, which can be killed; the test is skipped where its programs are missing."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.support import free_port


class OwnPostgres:
    """On a free port of loopback, its files in a folder that is gone afterwards."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._port = folder, free_port()
        self.url = f"postgresql://postgres@127.0.0.1:{self._port}/postgres"
        self._run("initdb", "--auth=trust", "--username=postgres", "--no-sync", "-D", str(folder / "data"))
        self.start()

    def start(self) -> None:
        """Start it, and wait until it answers; after a kill it first recovers what was committed."""
        options = f"-p {self._port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={self._folder}"
        log = str(self._folder / "server.log")
        self._run("pg_ctl", "start", "--wait", "-D", str(self._folder / "data"), "-o", options, "-l", log)

    def kill(self) -> None:
        """`kill -9` of its first process; the others of it end by themselves when they notice."""
        first = psutil.Process(int((self._folder / "data" / "postmaster.pid").read_text().splitlines()[0]))
        others = first.children(recursive=True)
        first.send_signal(signal.SIGKILL)
        _, alive = psutil.wait_procs(others, timeout=60)
        assert not alive, "PostgreSQL is not gone within 60 s"

    def stop(self) -> None:
        """End it at once."""
        self._run("pg_ctl", "stop", "-m", "immediate", "-D", str(self._folder / "data"))

    def _run(self, *command: str) -> None:
        # It refuses to run as root.
        user = {"user": "postgres", "group": "postgres", "extra_groups": []} if os.geteuid() == 0 else {}
        done = subprocess.run(
            command, cwd=self._folder, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, timeout=120, **user
        )
        assert done.returncode == 0, done.stderr.decode()


@contextlib.contextmanager
def own_postgres() -> Iterator[OwnPostgres]:
    """Start one. Skips the test where PostgreSQL's own programs are not on the path."""
    if shutil.which("initdb") is None or shutil.which("pg_ctl") is None:
        pytest.skip("initdb and pg_ctl are not installed")
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
        if os.geteuid() == 0:
            shutil.chown(name, "postgres", "postgres")
        running = OwnPostgres(Path(name))
        try:
            yield running
        finally:
            running.stop()
