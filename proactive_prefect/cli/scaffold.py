"""The files of a new project: the same flows and rules that this package's own repository runs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path

from ..rules.schema import json_schema

_GITIGNORE = ".proactive/\n__pycache__/\n.env\n"


def new_files() -> Iterator[tuple[Path, str]]:
    """Every file of a new project: its path in it, and its text."""
    flows, rules = _sources()
    yield Path("proactive.toml"), rules.read_text("utf-8")
    yield Path("proactive.schema.json"), json.dumps(json_schema(), indent=2) + "\n"  # the first line names it
    yield from ((Path("flows") / path, text) for path, text in _python_files(flows))
    yield Path(".gitignore"), _GITIGNORE


def write_project(folder: Path) -> tuple[list[Path], list[Path]]:
    """Write a project's files into `folder`; gives those that were written and those that were there already.

    Nothing is overwritten. Raises OSError where the folder cannot be written.
    """
    written, kept = [], []
    for path, text in new_files():
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            with target.open("x", encoding="utf-8") as out:
                out.write(text)
        except FileExistsError:
            kept.append(path)
        else:
            written.append(path)
    return written, kept


def _sources() -> tuple[Traversable, Traversable]:
    packed = files("proactive_prefect") / "_project"
    if packed.is_dir():
        return packed / "flows", packed / "proactive.toml"
    repository = Path(__file__).resolve().parents[2]  # an editable install
    return repository / "flows", repository / "deployments" / "proactive.toml"


def _python_files(folder: Traversable, below: Path = Path()) -> Iterator[tuple[Path, str]]:
    for entry in sorted(folder.iterdir(), key=lambda found: found.name):
        if entry.is_dir() and entry.name != "__pycache__":
            yield from _python_files(entry, below / entry.name)
        elif entry.name.endswith(".py"):
            yield below / entry.name, entry.read_text("utf-8")
