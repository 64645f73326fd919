"""Closes the cursors of SQLite whose statement was refused or given up, so that they cannot stop the process later.

aiosqlite runs each call in the thread of its connection; SQLAlchemy closes the cursor when all went well, and forgets
it when not. It stays in a cycle of references (the exception, its frames), until Python's collector resets it, in
whichever thread that runs: often that of the event loop. There the reset waits for the connection, which somebody else
uses by now; if that one waits for the write lock, and who has the lock waits for the event loop, the process stands
still until SQLite gives up: after 60 s on Prefect's server, again and again for as long as statements are refused.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Awaitable, Callable
from typing import Any

from aiosqlite import Connection

_execute: Callable[..., Awaitable[Any]] = Connection._execute


async def _execute_or_close(self: Connection, fn: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    try:
        return await _execute(self, fn, *args, **kwargs)
    except BaseException:
        cursor = getattr(fn, "__self__", None)
        if isinstance(cursor, sqlite3.Cursor):
            # By the thread of the connection, after what it does now; nobody waits for it.
            self._tx.put_nowait((None, cursor.close))
        raise


def close_failed_cursors() -> None:
    """From now on, close each cursor in this process whose call fails or is cancelled."""
    Connection._execute = _execute_or_close  # type: ignore[method-assign]
