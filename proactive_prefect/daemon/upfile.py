"""What `proactive up` leaves on disk while it runs: a lock, and `up.json` by which other commands find it."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
import tempfile
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import TextIO, TypedDict

from ..errors import InputError
from .children import Say

UP_FILE = "up.json"
LOCK_FILE = "up.lock"
_LOOK = 0.5  # seconds in which whoever only looks at the lock has let go of it
_LONGEST_BACKOFF = 30.0


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
        return content if content["pids"]["up"] == _holder(home) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _holder(home: Path) -> object:
    """The process id of the `up` that runs, as the lock has it; None if the lock is free.

    Only the kernel knows whether an `up` runs: after a restart, or in a container, its process id is another's.
    """
    with (home / LOCK_FILE).open() as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return _note(lock.read()).get("pid")
    return None


def write_up_file(home: Path, content: UpFile) -> None:
    """Replace `up.json` in one step; mode 0600 from the first byte on."""
    write_private(home / UP_FILE, json.dumps(content, indent=2) + "\n")


async def keep_writing(home: Path, content: UpFile, say: Say) -> None:
    """`write_up_file`, again and again until it succeeds: what runs does not end because a disk is full."""
    backoff = 1.0
    while True:
        try:
            write_up_file(home, content)
        except OSError as error:
            say(f"{UP_FILE} cannot be written ({error.strerror or error}); trying again in {backoff:g} s")
        else:
            return
        await asyncio.sleep(backoff)
        backoff = min(backoff * 2, _LONGEST_BACKOFF)


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
        if not _take(lock):
            raise _already_running(home, lock.read())
        earlier = _note(lock.read()).get("tag")
        lock.seek(0)
        lock.truncate()
        json.dump({"pid": os.getpid(), "tag": tag, "since": datetime.now().astimezone().isoformat()}, lock)
        lock.flush()
        yield str(earlier) if earlier else None


def _take(lock: TextIO) -> bool:
    """Whether the lock was free, but for a moment in which somebody looked at it; it is taken now."""
    deadline = time.monotonic() + _LOOK
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except OSError:
            if time.monotonic() > deadline:
                return False
        time.sleep(0.02)


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
