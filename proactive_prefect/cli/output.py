"""What the command prints: tables and lines for people, JSON for programs, errors on stderr."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any

import cyclopts

if TYPE_CHECKING:
    from rich.console import Console

Json = Annotated[bool, cyclopts.Parameter(name="--json", negative="", help="Print JSON, for programs.")]
_WIDE = 240  # where no terminal bounds the width, nothing is cut short


def line(text: str = "") -> None:
    """One line on stdout."""
    sys.stdout.write(clean(text) + "\n")


def note(text: str) -> None:
    """One line for people on stderr, so that stdout stays clean."""
    sys.stderr.write(clean(text) + "\n")


def complain(text: str) -> None:
    """What was wrong, on stderr."""
    note(f"error: {text}")


def hint_line(text: str) -> None:
    """What to do, on stderr."""
    if text:
        note(f"hint: {text}")


def as_json(data: Any) -> None:
    """JSON on stdout; instants in ISO 8601, ids and paths as text."""
    sys.stdout.write(json.dumps(data, indent=2, default=_text, ensure_ascii=False) + "\n")


def _text(value: object) -> str:
    return value.isoformat() if isinstance(value, datetime) else str(value)


def stdout() -> Console:
    """A rich console on stdout: as wide as the terminal, or wide where there is none."""
    from rich.console import Console

    return Console() if sys.stdout.isatty() else Console(width=_WIDE)


@contextlib.contextmanager
def progress(steps: int, *, quiet: bool) -> Iterator[Callable[[str], None]]:
    """Shows each step of long work: a bar on a terminal, plain lines elsewhere, nothing if `quiet`."""
    if quiet or steps == 0:
        yield lambda step: None
    elif sys.stdout.isatty():
        from rich.markup import escape
        from rich.progress import Progress

        with Progress(transient=True) as bar:
            task = bar.add_task("", total=steps)
            yield lambda step: bar.update(task, advance=1, description=escape(clean(step)))
    else:
        yield line


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """A table on stdout; what is in its cells is text only, whatever brackets or escapes it has."""
    from rich.table import Table
    from rich.text import Text

    grid = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for number, column in enumerate(columns):
        last = number == len(columns) - 1
        grid.add_column(column, no_wrap=not last, overflow="fold" if last else "ellipsis")
    for row in rows:
        grid.add_row(*(Text(clean(cell)) for cell in row))
    stdout().print(grid)


def clean(text: str) -> str:
    """Text without what a terminal would obey: control characters and escapes."""
    return "".join(char if char.isprintable() or char in "\n\t" else "\N{REPLACEMENT CHARACTER}" for char in text)
