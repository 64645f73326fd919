"""What `up` leaves on disk: private, whole, and no word from a process that is gone."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from proactive_prefect.daemon.ports import choose_port, listens, url_at
from proactive_prefect.daemon.server import server_env
from proactive_prefect.daemon.upfile import (
    UpFile,
    keep_writing,
    only_one,
    read_up_file,
    remove_up_file,
    write_up_file,
)
from proactive_prefect.errors import InputError

from ..support import wait_until, wait_until_sync
from .running import needs_ipv6


def content(pid: int) -> UpFile:
    return UpFile(
        prefect_url="http://127.0.0.1:4200",
        prefect_api_url="http://127.0.0.1:4200/api",
        gateway_url="http://127.0.0.1:4280",
        token="t",
        webhooks={"hook": {"url": "http://127.0.0.1:4280/hooks/hook", "secret": "s"}},
        pids={"up": pid},
        started_at="2026-01-01T00:00:00+00:00",
    )


def test_the_file_is_for_its_owner_only_and_read_back_as_written(tmp_path: Path) -> None:
    """Mode 0600, and nothing else is left in the folder."""
    with only_one(tmp_path, "here"):
        write_up_file(tmp_path, content(os.getpid()))
        assert (tmp_path / "up.json").stat().st_mode & 0o777 == 0o600
        assert read_up_file(tmp_path) == content(os.getpid())
        assert {path.name for path in tmp_path.iterdir()} == {"up.json", "up.lock"}
        remove_up_file(tmp_path)
        remove_up_file(tmp_path)
        assert read_up_file(tmp_path) is None


def test_a_file_that_a_crash_left_is_no_answer(tmp_path: Path) -> None:
    """Neither one whose `up` is gone counts, though another process has its id by now, nor a broken one."""
    with only_one(tmp_path, "killed"):
        write_up_file(tmp_path, content(os.getpid()))
    assert read_up_file(tmp_path) is None
    with only_one(tmp_path, "next"):
        write_up_file(tmp_path, content(os.getppid()))  # what the killed one left, before the next one removes it
        assert read_up_file(tmp_path) is None
        (tmp_path / "up.json").write_text('{"pids": ')
        assert read_up_file(tmp_path) is None


def test_who_looks_for_an_up_does_not_keep_one_from_starting(tmp_path: Path) -> None:
    """Commands in other terminals look at the lock at any moment."""
    write_up_file(tmp_path, content(os.getpid()))
    (tmp_path / "up.lock").touch()
    program = (
        "import sys\n"
        "from pathlib import Path\n"
        "from proactive_prefect.daemon.upfile import read_up_file\n"
        "print('looks', flush=True)\n"
        "while True:\n"
        "    read_up_file(Path(sys.argv[1]))\n"
    )
    looker = subprocess.Popen([sys.executable, "-c", program, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    try:
        assert looker.stdout is not None
        assert looker.stdout.readline() == "looks\n"
        for _ in range(100):
            with only_one(tmp_path, "starts"):
                pass
    finally:
        looker.kill()
        looker.wait()


async def test_a_file_that_cannot_be_written_is_written_later(tmp_path: Path) -> None:
    """Whatever the reason (here a folder is in its place), that is said, and tried again."""
    (tmp_path / "up.json").mkdir()
    said: list[str] = []
    writing = asyncio.create_task(keep_writing(tmp_path, content(os.getpid()), said.append))
    await wait_until(lambda: said, what="a try in vain")
    assert said == ["up.json cannot be written (Is a directory); trying again in 1 s"]
    assert not writing.done()
    (tmp_path / "up.json").rmdir()
    await writing
    assert json.loads((tmp_path / "up.json").read_text()) == content(os.getpid())


def test_only_one_up_holds_a_project_and_the_next_learns_of_the_one_before(tmp_path: Path) -> None:
    """The second is refused with exit code 2; after the first has ended, its tag is handed on."""
    with only_one(tmp_path, "first") as earlier:
        assert earlier is None
        with pytest.raises(InputError, match=f"process {os.getpid()}"), only_one(tmp_path, "second"):
            pass
    with only_one(tmp_path, "third") as earlier:
        assert earlier == "first"


def test_a_killed_up_does_not_keep_the_project_locked(tmp_path: Path) -> None:
    """The lock goes with its process, however it ends."""
    program = (
        "import sys, time\n"
        "from pathlib import Path\n"
        "from proactive_prefect.daemon.upfile import only_one\n"
        "with only_one(Path(sys.argv[1]), 'killed'):\n"
        "    print('held', flush=True)\n"
        "    time.sleep(600)\n"
    )
    holder = subprocess.Popen([sys.executable, "-c", program, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    with pytest.raises(InputError), only_one(tmp_path, "second"):
        pass
    holder.kill()
    holder.wait()
    with only_one(tmp_path, "second") as earlier:
        assert earlier == "killed"


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "0.0.0.0", "localhost", *(pytest.param(host, marks=needs_ipv6) for host in ("::1", "::"))]
)
def test_a_taken_port_gives_a_free_one(host: str) -> None:
    """The port wished for if it is free, else another, on which really nobody listens; and the way to it."""
    port = choose_port(host, 0)
    assert choose_port(host, port) == port
    server = subprocess.Popen([sys.executable, "-m", "http.server", str(port), "--bind", host])
    try:
        wait_until_sync(lambda: listens(server.pid, port), what="the server on the port")
        assert httpx.get(url_at(host, port), timeout=30).status_code == 200
        other = choose_port(host, port)
        assert other not in (0, port)
        assert not listens(server.pid, other)
        assert not listens(os.getpid(), port)
    finally:
        server.kill()
        server.wait()


def test_what_the_user_has_set_wins_over_the_server_defaults(tmp_path: Path) -> None:
    """PREFECT_HOME and Prefect's settings stay the user's; otherwise all files are in PROACTIVE_HOME."""
    url = "http://127.0.0.1:1/api"
    ours = server_env({}, tmp_path, url)
    assert ours["PREFECT_HOME"] == str(tmp_path / "prefect")
    assert ours["PREFECT_SERVER_ANALYTICS_ENABLED"] == "false"
    assert ours["PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE"].endswith(".filesystem")
    theirs = server_env({"PREFECT_HOME": "/x", "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": "m"}, tmp_path, url)
    assert theirs["PREFECT_HOME"] == "/x"
    assert theirs["PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE"] == "m"


@pytest.mark.parametrize(
    ("file", "text", "names"),
    [
        (".env", "PREFECT_API_URL=http://x/api\n", True),
        ("prefect.toml", '[api]\nurl = "http://x/api"\n', True),
        ("pyproject.toml", '[tool.prefect.api]\nurl = "http://x/api"\n', True),
        ("home/profiles.toml", '[profiles.a]\nPREFECT_API_URL = "http://x/api"\n', True),
        ("pyproject.toml", '[project]\ndependencies = ["prefect"]\n', False),
        ("home/profiles.toml", 'active = "ephemeral"\n', False),
    ],
)
def test_every_place_where_prefect_may_name_a_server_is_looked_at(
    tmp_path: Path, file: str, text: str, names: bool
) -> None:
    """The environment, .env, prefect.toml, pyproject.toml and the profiles."""
    (tmp_path / "home").mkdir()
    (tmp_path / file).write_text(text)
    program = "from proactive_prefect.daemon.server import may_name_an_api as f; print(f())"
    env = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env={**env, "PREFECT_HOME": str(tmp_path / "home")},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == str(names)


def test_the_look_for_a_server_is_cheap() -> None:
    """It does not import Prefect, which takes seconds."""
    program = (
        "import sys\n"
        "from proactive_prefect.daemon.server import may_name_an_api\n"
        "may_name_an_api()\n"
        "print('prefect' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
