"""The story of an embedded Prefect that stood still for a minute at a time, for as long as many runs were late.

Many runs were to be marked late at once, and some statements were refused (the database was locked). Each refusal left
a cursor behind. Python's collector reset it in the thread of the event loop, which so waited for a connection that
waited for the lock, whose holder waited for the event loop.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
import asyncio, gc, sys, time
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import create_async_engine
from proactive_prefect.cursors import close_failed_cursors

if sys.argv[2] == "mended":
    close_failed_cursors()


async def main():
    engine = create_async_engine(f"sqlite+aiosqlite:///{sys.argv[1]}", pool_size=2, connect_args={"timeout": 3})
    gc.disable()
    one, other = await engine.connect(), await engine.connect()
    await one.exec_driver_sql("CREATE TABLE t (id INTEGER PRIMARY KEY)")
    await one.exec_driver_sql("INSERT INTO t VALUES (1)")
    await one.commit()
    try:
        await one.exec_driver_sql("INSERT INTO t VALUES (1)")
    except sa.exc.IntegrityError as refused:
        refused.itself = refused  # as who logs it does
    await one.rollback()
    await other.exec_driver_sql("BEGIN IMMEDIATE")
    waiting = asyncio.create_task(one.exec_driver_sql("BEGIN IMMEDIATE"))
    await asyncio.sleep(0.5)
    began = time.monotonic()
    gc.collect()
    print(time.monotonic() - began)
    await other.rollback()
    await asyncio.gather(waiting, return_exceptions=True)
    await one.rollback()
    await one.close()
    await other.close()
    await engine.dispose()


asyncio.run(main())
"""


def stood_still(tmp_path: Path, driver: str) -> float:
    """For how many seconds the event loop stood still when a cursor of a refused statement was collected."""
    command = [sys.executable, "-c", SCRIPT, str(tmp_path / "some.db"), driver]
    return float(subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout)


def test_a_refused_statement_does_not_make_the_event_loop_stand_still_later(tmp_path: Path) -> None:
    """The mended driver closes its cursor at once, in the thread of its connection."""
    assert stood_still(tmp_path, "mended") < 1


@pytest.mark.slow
def test_the_driver_itself_does(tmp_path: Path) -> None:
    """When this fails, the driver has been mended elsewhere, and `cursors.py` can go."""
    assert stood_still(tmp_path, "stock") > 1
