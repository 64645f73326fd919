"""Scheduling Runtime V2: its promises about what was missed. The stasis queue outlives the restart that fills it."""

from __future__ import annotations

import itertools
import re
import sqlite3
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from proactive_prefect.cli.scaffold import write_project

from ..support import wait_until_sync
from .conftest import ACTIONS, Life, environment, up

HOURS = 10
_INSTANT = re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d")
_DAYS = timedelta(days=3)


def set_back(database: Path, by: timedelta) -> None:
    """Write the database as of then: every time of these days in it, also inside of text, is earlier by `by`."""
    now = datetime.now(UTC).replace(tzinfo=None)

    def earlier(found: re.Match[str]) -> str:
        text = found.group()
        at = datetime.fromisoformat(text)
        return (at - by).isoformat(sep=text[10]) if abs(at - now) < _DAYS else text

    with sqlite3.connect(database) as db:
        tables = [row[0] for row in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        for table in tables:
            columns = [row[1] for row in db.execute(f'PRAGMA table_info("{table}")')]
            for row in db.execute(f'SELECT rowid, * FROM "{table}"').fetchall():
                changed = {
                    column: new
                    for column, old in zip(columns, row[1:], strict=True)
                    if isinstance(old, str) and (new := _INSTANT.sub(earlier, old)) != old
                }
                if changed:
                    sets = ", ".join(f'"{column}" = ?' for column in changed)
                    db.execute(f'UPDATE "{table}" SET {sets} WHERE rowid = ?', [*changed.values(), row[0]])
    db.close()


def project(folder: Path) -> None:
    """Two hourly rules, due half an hour from now on: one asks what to do with missed runs, one runs them."""
    write_project(folder)
    anchor = datetime.now(UTC) + timedelta(minutes=30) - timedelta(days=300)
    shared = f"""
every = "1h"
anchor = {anchor:%Y-%m-%dT%H:%M:%SZ}
action = {{ type = "python", call = "acting:tick" }}
"""
    (folder / "acting.py").write_text(ACTIONS)
    (folder / "proactive.toml").write_text(
        '[proactive]\nenabled = true\nmodules = ["acting"]\n'
        f'[[heartbeat]]\nid = "asks"\n{shared}'
        f'[[heartbeat]]\nid = "runs"\non_missed = "run"\non_overlap = "allow"\n{shared}'
    )


def plain_deployment(life: Life) -> str:
    """A deployment of any flow, without us: hourly, as `asks`; nobody runs it."""
    api = life.up["prefect_api_url"]
    [ours] = [one for one in life.prefect("/deployments/filter", {}) if one["name"] == "asks"]
    flow = httpx.post(f"{api}/flows/", json={"name": "plain"}, timeout=60).json()["id"]
    schedule = {"schedule": ours["schedules"][0]["schedule"], "active": True, "slug": "hourly"}
    body = {"name": "plain", "flow_id": flow, "schedules": [schedule]}
    answer = httpx.post(f"{api}/deployments/", json=body, timeout=60)
    answer.raise_for_status()
    return str(answer.json()["id"])


def due_runs(life: Life, name: str) -> list[dict[str, Any]]:
    """The runs of a deployment that were due by now, oldest first."""
    now = datetime.now(UTC)
    return [run for run in life.runs(name) if datetime.fromisoformat(run["expected_start_time"]) < now]


@pytest.mark.slow
def test_ten_hours_without_a_server_are_ten_missed_runs_each_decided_once(tmp_path: Path) -> None:
    """Stock Prefect knows of three of them, and says nothing of the other seven.

    The project is stopped, all its databases are written as of ten hours ago, and it is started again.
    """
    folder = tmp_path / "project"
    folder.mkdir()
    project(folder)
    env = environment(folder) | {"PROACTIVE_MISSED_AT_ONCE": "1"}
    with up(folder, env) as life:
        plain_deployment(life)
        for name in ("asks", "runs", "plain"):
            wait_until_sync(lambda name=name: len(life.runs(name)) >= 3, what=f"Prefect made runs of {name}")  # type: ignore[misc]

        def known() -> bool:
            return life.command("why", "asks", f"{datetime.now(UTC):%Y-%m-%dT%H:%MZ}").returncode == 0

        wait_until_sync(known, what="the ledger knows the rules", timeout=90, every=1)
    for database in (*folder.glob(".proactive/*.db"), *folder.glob(".proactive/prefect/*.db")):
        set_back(database, timedelta(hours=HOURS))
    with up(folder, env) as life:
        queue = f"{life.up['gateway_url']}/api/v1/proactive/missed"
        bearer = {"Authorization": f"Bearer {life.up['token']}"}

        def listed() -> list[dict[str, Any]] | None:
            answer = httpx.get(f"{queue}?rule=asks", headers=bearer, timeout=60)
            items: list[dict[str, Any]] = answer.json()["items"]
            return items if len(items) == HOURS else None

        items = wait_until_sync(listed, what="ten missed runs are listed", timeout=240, every=1)
        assert items is not None
        missed = life.runs("asks", "Missed")
        assert [run["id"] for run in missed] == [item["run_id"] for item in items]
        times = [datetime.fromisoformat(run["expected_start_time"]) for run in missed]
        assert [later - earlier for earlier, later in itertools.pairwise(times)] == [timedelta(hours=1)] * 9
        stock = [run["state_name"] for run in due_runs(life, "plain")]
        print(f"\nten hours of an hourly rule: stock Prefect has {stock}; here {HOURS} are Missed")
        assert len(stock) == 3

        # Each decided once: by the command, over HTTP, in Prefect's own way; the first stands.
        words: list[tuple[str, Callable[[], Any]]] = [
            ("Completed", lambda: life.command("missed", "approve", str(items[0]["occurrence_id"]))),
            ("Rescheduled", lambda: life.command(
                "missed", "reschedule", str(items[1]["occurrence_id"]), "--to",
                (datetime.now(UTC) + timedelta(hours=1)).isoformat())),
            ("Cancelled", lambda: life.command("missed", "delete", items[2]["run_id"])),
            ("Completed", lambda: life.prefect(f"/flow_runs/{items[3]['run_id']}/resume", {})),
        ]  # fmt: skip
        for _, decide in words:
            decide()
        # Many at once: those before a time, by the command; all that are left, over HTTP.
        life.command("missed", "delete", "--rule", "asks", "--before", times[6].isoformat(), "--yes")
        body = {"action": "delete_missed", "rule": "asks"}
        answer = httpx.post(f"{queue}/resolve", json=body, headers=bearer, timeout=120)
        assert answer.json()["resolved"] == 4, answer.text
        wanted = [*(state for state, _ in words), *["Cancelled"] * 6]

        def ended() -> bool:
            return [run["state_name"] for run in due_runs(life, "asks")] == wanted

        wait_until_sync(ended, what=f"the runs ended as {wanted}", timeout=180, every=1)
        assert f"due at {times[0].isoformat()}" in due_runs(life, "asks")[0]["state"]["message"]

        # The rule that runs what it missed has caught up, one after another, each for its own time.
        def caught_up() -> bool:
            return [run["state_name"] for run in due_runs(life, "runs")] == ["Completed"] * HOURS

        wait_until_sync(caught_up, what="ten runs have caught up", timeout=300, every=1)
        # Also those that Prefect had made, which the worker was offered all at once, and whose rule allows overlap.
        spans = sorted((run["start_time"], run["end_time"]) for run in due_runs(life, "runs"))
        assert all(ended <= began for (_, ended), (began, _) in itertools.pairwise(spans)), spans
        for number, wanted_word in ((0, "approve_backfill_run"), (1, "reschedule"), (2, "delete_missed")):
            told = life.command("why", "asks", times[number].isoformat()).stdout
            assert wanted_word in told, told
