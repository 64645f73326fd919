"""`proactive soak` as a user runs it, against the `up` that it starts."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from ..daemon.running import clean_env


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_short_soak_holds(tmp_path: Path) -> None:
    """A minute of rules of all kinds: the report has every level, nothing is lost, and none runs twice."""
    done = subprocess.run(
        [sys.executable, "-m", "proactive_prefect.cli", "soak", "--duration", "60s", "--max-lag", "60", "--json"],
        cwd=tmp_path,
        env=clean_env(tmp_path),
        capture_output=True,
        text=True,
        timeout=880,
        check=False,
    )
    assert done.stdout, done.stderr
    report = json.loads(done.stdout)
    levels = {one["name"]: one for one in report["levels"]}
    print(done.stdout)
    for name in ("complete", "once", "webhooks", "log", "stasis"):
        assert levels[name]["holds"], levels[name]
    assert done.returncode == (0 if report["holds"] else 1)
    assert sum(report["outcomes"].values()) >= 8


def test_a_wrong_duration_is_refused_at_once(tmp_path: Path) -> None:
    """Exit code 2, one line, and nothing is started."""
    done = subprocess.run(
        [sys.executable, "-m", "proactive_prefect.cli", "soak", "--duration", "soon"],
        cwd=tmp_path,
        env=clean_env(tmp_path),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2
    assert "'soon' is not a duration" in done.stderr
