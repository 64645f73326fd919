"""What `proactive up` leaves on disk while it runs: a lock, and `up.json` by which other commands find it."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import tempfile
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import TypedDict

import psutil

from ..errors import InputError

UP_FILE = "up.json"
LOCK_FILE = "up.lock"


class WebhookEntry(TypedDict):
    """How to call one webhook."""

    url: str
    secret: str


class UpFile(TypedDict):
    """`up.json`: where everything is, written when all of it is ready, readable by its owner only."""

    prefect_url: str
    prefect_api_url: str
    gateway_url: str
    token: str
    webhooks: dict[str, WebhookEntry]
    pids: dict[str, int]
    started_at: str


def read_up_file(home: Path) -> UpFile | None:
    """What a running `up` of this project has written; None if none runs (a file that a crash left is no answer)."""
    try:
        content: UpFile = json.loads((home / UP_FILE).read_text())
        alive = psutil.pid_exists(content["pids"]["up"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return content if alive else None


def write_up_file(home: Path, content: UpFile) -> None:
    """Replace `up.json` in one step; mode 0600 from the first byte on."""
    write_private(home / UP_FILE, json.dumps(content, indent=2) + "\n")


def remove_up_file(home: Path) -> None:
    """Remove `up.json`, if it is there."""
    (home / UP_FILE).unlink(missing_ok=True)


def write_private(path: Path, text: str) -> None:
    """Write a file that only its owner can read, whole or not at all."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")  # mkstemp gives mode 0600
    try:
        with os.fdopen(handle, "w") as out:
            out.write(text)
            out.flush()
            os.fsync(out.fileno())
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise


@contextlib.contextmanager
def only_one(home: Path, tag: str) -> Iterator[str | None]:
    """Hold the project's lock while `up` runs, and note its `tag`; gives the tag of the `up` before, if there was one.

    Raises InputError if another `up` holds the lock. The kernel frees it when its process dies, in whatever way.
    """
    home.mkdir(parents=True, exist_ok=True)
    handle = os.open(home / LOCK_FILE, os.O_RDWR | os.O_CREAT, 0o600)
    with os.fdopen(handle, "r+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise _already_running(home, lock.read()) from None
        earlier = _note(lock.read()).get("tag")
        lock.seek(0)
        lock.truncate()
        json.dump({"pid": os.getpid(), "tag": tag, "since": datetime.now().astimezone().isoformat()}, lock)
        lock.flush()
        yield str(earlier) if earlier else None


def _note(text: str) -> dict[str, object]:
    with contextlib.suppress(ValueError):
        note = json.loads(text)
        if isinstance(note, dict):
            return note
    return {}


def _already_running(home: Path, text: str) -> InputError:
    note = _note(text)
    running = read_up_file(home)
    where = f", Prefect at {running['prefect_url']}" if running else ""
    return InputError(
        f"`proactive up` is running in this project already (process {note.get('pid', 'unknown')}{where})",
        hint="End it with Ctrl-C there, or use it from here: `proactive list`, `proactive apply`.",
    )
