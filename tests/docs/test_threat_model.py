"""The threat model names tests, and they are there."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MODEL = (ROOT / "docs/threat-model.md").read_text()
NAMED = sorted(set(re.findall(r"`(tests/[\w/]+\.py)(?:::(test_\w+))?`", MODEL)))


@pytest.mark.parametrize(("file", "name"), NAMED)
def test_every_test_that_it_names_exists(file: str, name: str) -> None:
    """A defence whose test was renamed or taken away is no longer shown."""
    tree = ast.parse((ROOT / file).read_text())
    found = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}
    assert name in found if name else any(one.startswith("test_") for one in found)


def test_every_defence_has_a_test() -> None:
    """Each line of a table of threats ends with one; each file of the security tests is named."""
    rows = [line for line in MODEL.splitlines() if line.startswith("| ") and line.count("|") == 4]
    threats = [row for row in rows if not row.startswith(("| Threat", "| Who"))]
    assert len(threats) > 20
    assert all("`tests/" in row.rsplit("|", 2)[1] for row in threats)
    named = {file for file, _ in NAMED}
    files = {str(file.relative_to(ROOT)) for file in (ROOT / "tests/security").glob("test_*.py")}
    assert files <= named
