"""The `proactive` command. Thin: what it does is done by the rooms below."""

from __future__ import annotations

import sys
from collections.abc import Sequence

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command with `argv` (default: the process's arguments) and exit: 0 done, 1 failed, 2 wrong input,
    3 differs."""
    from .app import run

    sys.exit(run(sys.argv[1:] if argv is None else list(argv)))
