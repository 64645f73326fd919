"""The runbook explains every line that the long-running services write."""

from __future__ import annotations

import re
from pathlib import Path

from proactive_prefect.soak.slo import Limits, Seen, verdicts

ROOT = Path(__file__).parents[2]
RUNBOOK = (ROOT / "docs/runbook.md").read_text()
LINE = re.compile(r'log\.(?:info|warning|error|exception)\(\s*"([a-z]+\.[a-z_]+)')


def test_every_log_line_is_explained() -> None:
    """A line that nobody explains is noise to whoever is called at night."""
    sources = (ROOT / "proactive_prefect").rglob("*.py")
    lines = {line: str(path.relative_to(ROOT)) for path in sources for line in LINE.findall(path.read_text())}
    assert len(lines) > 10
    unexplained = {line: where for line, where in lines.items() if f"`{line}" not in RUNBOOK}
    assert unexplained == {}, "explain these in docs/runbook.md, in the table of log lines"


def test_every_service_level_is_listed() -> None:
    """The table has the levels of `proactive soak`, in their order."""
    names = [one.name for one in verdicts(Seen(), Limits())]
    table = RUNBOOK[RUNBOOK.index("| Level | Promise |") :]
    assert re.findall(r"^\| ([a-z ]+) \|", table, re.M)[: len(names)] == names
