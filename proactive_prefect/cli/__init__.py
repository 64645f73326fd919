"""The `proactive` command. Thin: what it does is done by the rooms below."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command with `argv` (default: the process's arguments) and exit: 0 done, 1 failed, 2 wrong input,
    3 differs."""
    # Prefect's client would count its users, and say so between the lines of a command; who wants that sets it to 0.
    os.environ.setdefault("DO_NOT_TRACK", "1")
    from .app import run

    sys.exit(run(sys.argv[1:] if argv is None else list(argv)))
