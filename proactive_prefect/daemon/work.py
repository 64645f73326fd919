"""`proactive worker`: Prefect's own `worker start` for our work pool; waits for a server that still starts."""

from __future__ import annotations

import importlib
import os
import runpy
import socket
import sys
import time
from typing import Literal

import httpx

from ..errors import PrefectUnreachable
from ..settings import Settings

# The type of the workers that are started here, and of work pools that are created.
WORKER_TYPE: Literal["process", "proactive"] = "proactive"
_LONGEST_START = 600.0  # of a server that `up` starts beside the worker


def work(settings: Settings) -> None:
    """Run a worker until SIGINT or SIGTERM. Raises PrefectUnreachable if no server answers within ten minutes."""
    importlib.import_module("proactive_prefect.worker")  # seconds, in which the server may be starting too
    _wait_for_server(os.environ.get("PREFECT_API_URL"), max(settings.api_patience, _LONGEST_START))
    name = os.environ.get("PROACTIVE_WORKER_NAME") or f"proactive on {socket.gethostname()}"
    sys.argv = ["prefect", "worker", "start", "--type", WORKER_TYPE, "--pool", settings.work_pool, "--name", name]
    runpy.run_module("prefect", run_name="__main__", alter_sys=True)


def _wait_for_server(api_url: str | None, patience: float) -> None:
    """Wait for an answer; without an address in the environment, Prefect's settings know more and decide."""
    if api_url is None:
        return
    deadline = time.monotonic() + patience
    while True:
        try:
            httpx.get(f"{api_url}/health", timeout=5)
            return
        except httpx.HTTPError as error:
            if time.monotonic() > deadline:
                raise PrefectUnreachable(
                    f"no answer from the Prefect API at {api_url} ({type(error).__name__})",
                    hint="`proactive up` starts a server; PREFECT_API_URL names another.",
                ) from None
        time.sleep(0.2)
