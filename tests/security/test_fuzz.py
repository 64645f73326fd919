"""What reads strangers' bytes, fuzzed with coverage as the guide; `make fuzz` goes on for longer."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest

from .tried import TRIED

ROOT = Path(__file__).parents[2]
RUNS = 20_000
SECONDS = 20


@pytest.mark.skipif(
    importlib.util.find_spec("atheris") is None, reason="atheris has no wheel for this machine and Python"
)
@pytest.mark.parametrize("target", ["claims", "body", "hops", "networks", "rules"])
def test_no_bytes_break_a_reader(target: str, tmp_path: Path) -> None:
    """Nothing but the errors that are meant for it comes out of a reader, and nobody gets in without the secret."""
    options = [f"-runs={RUNS}", f"-max_total_time={SECONDS}", "-max_len=2000", "-seed=1", "-print_final_stats=1"]
    ended = subprocess.run(
        [sys.executable, "-m", "tests.security.fuzz", target, *options, f"-artifact_prefix={tmp_path}/"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert ended.returncode == 0, ended.stderr[-3000:]
    found = re.search(r"number_of_executed_units: (\d+)", ended.stderr)
    assert found, ended.stderr[-3000:]
    TRIED[f"bytes for the reader of {target} (atheris)"] += int(found[1])
