"""The floors of the house: imports go down only, and only named rooms know Prefect."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = "proactive_prefect"

# A module may import from its own room and from rooms on lower floors.
FLOORS = {
    "settings": 0,
    "errors": 0,
    "cursors": 0,
    "lifeline": 0,
    "networks": 0,
    "tracing": 0,
    "rules": 1,
    "ledger": 2,
    "prefect_api": 2,
    "firing": 2,
    "calendar": 3,
    "deploy": 3,
    "missed": 3,
    "webhooks": 3,
    "wakes": 3,
    "worker": 4,
    "gateway": 5,
    "sdk": 5,
    "daemon": 5,
    "soak": 5,
    "cli": 5,
}
# `firing`, `ledger` and `prefect_api` share a floor; each knows those that stand behind it here.
SAME_FLOOR = {
    ("firing", "prefect_api"),
    ("firing", "ledger"),  # a payload that was too large to come along
    ("ledger", "prefect_api"),
    ("calendar", "missed"),  # which decides
    ("settings", "networks"),
    ("cli", "daemon"),
    ("cli", "gateway"),
    ("daemon", "gateway"),
    ("cli", "sdk"),
    ("cli", "soak"),
    ("soak", "daemon"),
    ("soak", "gateway"),
    ("sdk", "daemon"),  # where `up` left the address of its server
}
MAY_IMPORT_PREFECT = {"prefect_api", "worker", "firing"}


def room(module: str) -> str | None:
    """`proactive_prefect.rules.models` is in the room `rules`; the package's own `__init__` is in none."""
    parts = module.split(".")
    return parts[1] if parts[0] == PACKAGE and len(parts) > 1 else None


def imports(path: Path) -> Iterator[tuple[int, str]]:
    """Every module that the file at `path` imports, absolute, with its line."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    package = list(parts if path.name == "__init__.py" else parts[:-1])
    if path.name == "__init__.py":
        package = package[:-1]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            name = ".".join([*base, *([node.module] if node.module else [])])
            yield node.lineno, name
            # `from . import gate` names modules, not only names in them.
            yield from ((node.lineno, f"{name}.{alias.name}") for alias in node.names)


# Runs inside of the embedded server; tests/daemon/test_turns.py fails where Prefect's server is another one.
MENDS_PREFECT = Path("daemon/turns.py")
MODULES = sorted((ROOT / PACKAGE).rglob("*.py"))


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT / PACKAGE)))
def test_imports_go_down_only(path: Path) -> None:
    """A module imports from its own room and from lower floors, never from above."""
    importer = room(".".join(path.relative_to(ROOT).with_suffix("").parts))
    if importer is None or importer.startswith("_"):
        return
    assert importer in FLOORS, f"the room {importer!r} has no floor: add it to FLOORS"
    for line, module in imports(path):
        imported = room(module)
        if imported is None or imported == importer or imported not in FLOORS:
            continue
        down = FLOORS[imported] < FLOORS[importer] or (importer, imported) in SAME_FLOOR
        assert down, f"{path}:{line}: {importer} (floor {FLOORS[importer]}) imports {module}: imports go down only"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT / PACKAGE)))
def test_few_rooms_know_prefect_and_none_its_insides(path: Path) -> None:
    """Prefect is imported in three rooms only; its private and its server's modules in MENDS_PREFECT alone."""
    if path.relative_to(ROOT / PACKAGE) == MENDS_PREFECT:
        return
    importer = room(".".join(path.relative_to(ROOT).with_suffix("").parts))
    for line, module in imports(path):
        if module.split(".")[0] != "prefect":
            continue
        assert importer in MAY_IMPORT_PREFECT, f"{path}:{line}: {importer} imports {module}"
        assert not module.startswith(("prefect._internal", "prefect.server")), f"{path}:{line}: {module} is private"


def test_the_private_parts_of_modules_stay_short() -> None:
    """A module holds one noun: none is longer than 350 lines."""
    long = {str(path.relative_to(ROOT)): n for path in MODULES if (n := len(path.read_text().splitlines())) > 350}
    assert not long, f"split these: {long}"


def test_no_room_has_the_name_of_an_export() -> None:
    """`from proactive_prefect import heartbeat` is the decorator, whatever was imported before it."""
    import proactive_prefect

    rooms = {path.stem for path in (ROOT / PACKAGE).iterdir()}
    assert not rooms & set(proactive_prefect.__all__)
