"""`python -m proactive_prefect.daemon.embedded …`: Prefect's own command, its embedded database mended."""

from __future__ import annotations

import runpy
import sys

from ..cursors import close_failed_cursors
from .turns import let_creations_wait


def main() -> None:
    """Run `prefect` with the arguments of this process."""
    close_failed_cursors()
    if sys.argv[1:3] == ["server", "start"]:
        try:
            let_creations_wait()
        except (ImportError, AttributeError) as error:  # another Prefect than those that this was written for
            sys.stderr.write(f"runs are created without waiting for their turn to write: {error}\n")
    sys.argv[0] = "prefect"
    runpy.run_module("prefect", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
