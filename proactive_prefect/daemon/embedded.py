"""`python -m proactive_prefect.daemon.embedded …`: Prefect's own command, with the driver of its database mended."""

from __future__ import annotations

import runpy
import sys

from ..cursors import close_failed_cursors


def main() -> None:
    """Run `prefect` with the arguments of this process."""
    close_failed_cursors()
    sys.argv[0] = "prefect"
    runpy.run_module("prefect", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
