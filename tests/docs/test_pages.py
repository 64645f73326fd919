"""The documentation says what is true: generated pages are current, and its examples are run."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from docs.generate import pages
from proactive_prefect.cli.app import app
from proactive_prefect.rules.checks import check_calls
from proactive_prefect.rules.read import read_rules

from ..conftest import Server

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.S | re.M)


def examples(language: str) -> list[object]:
    """Every fenced example in a language, named by its page and its number there."""
    listed: list[object] = []
    for page in PAGES:
        found = [text for name, text in FENCE.findall(page.read_text()) if name == language]
        for number, text in enumerate(found, start=1):
            listed.append(pytest.param(text, id=f"{page.relative_to(ROOT)}#{number}"))
    return listed


@pytest.mark.parametrize("page", pages(), ids=lambda page: page.name)
def test_generated_pages_are_current(page: Path) -> None:
    """`make docs` would write what is there already."""
    assert page.read_text() == pages()[page], "run `make docs`"


@pytest.mark.parametrize("text", examples("toml"))
def test_rules_in_the_docs_are_right(text: str, tmp_path: Path) -> None:
    """Each TOML example is a rules file that `proactive check` accepts, together with the project's own modules."""
    file = tmp_path / "proactive.toml"
    if "[proactive]" not in text:
        text = '[proactive]\nenabled = true\nmodules = ["flows.actions"]\n' + text
    file.write_text(text)
    (tmp_path / "flows").symlink_to(ROOT / "flows")
    rulebook = read_rules(file)
    assert rulebook.rules
    assert not [mistake for mistake in check_calls(rulebook, tmp_path) if "flows" in str(mistake)]


@pytest.mark.parametrize("text", examples("python"))
def test_python_in_the_docs_runs(text: str, tmp_path: Path, prefect_server: Server) -> None:
    """Each Python example runs as it stands, as a script in a project, against a real server."""
    script = tmp_path / "example.py"
    script.write_text(text)
    done = subprocess.run(
        [sys.executable, str(script)], cwd=tmp_path, env=prefect_server.env, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.mark.parametrize("text", [*examples("console"), *examples("sh")])
def test_commands_in_the_docs_exist(text: str) -> None:
    """Each `proactive …` and `make …` line names a command that there is."""
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.M))
    known = {name for name in app if not name.startswith("-")}
    for line in text.splitlines():
        for name in re.findall(r"(?:^|[\s/])proactive (\w[\w-]*)", line):
            assert name in known, f"`proactive {name}` is in the docs, and no command"
        for name in re.findall(r"(?:^|\s)make (\w+)", line):
            assert name in targets, f"`make {name}` is in the docs, and no target"
