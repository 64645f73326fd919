"""`proactive worker`: Prefect's own `worker start` for our work pool; waits for a server that still starts."""

from __future__ import annotations

import asyncio
import importlib
import os
import runpy
import socket
import sys
import time
from typing import Literal

from ..errors import PrefectError, PrefectUnreachable
from ..settings import Settings

# The type of the workers that are started here, and of work pools that are created.
WORKER_TYPE: Literal["process", "proactive"] = "proactive"
_LONGEST_START = 600.0  # of a server that `up` starts beside the worker


def work(settings: Settings) -> None:
    """Run a worker until SIGINT or SIGTERM. Raises PrefectError if no server answers within ten minutes."""
    importlib.import_module("proactive_prefect.worker")  # seconds, in which the server may be starting too
    asyncio.run(wait_for_server(settings, max(settings.api_patience, _LONGEST_START)))
    name = os.environ.get("PROACTIVE_WORKER_NAME") or f"proactive on {socket.gethostname()}"
    sys.argv = ["prefect", "worker", "start", "--type", WORKER_TYPE, "--pool", settings.work_pool, "--name", name]
    runpy.run_module("prefect", run_name="__main__", alter_sys=True)


async def wait_for_server(settings: Settings, patience: float) -> None:
    """Wait for the server that Prefect's settings name; where they name none, Prefect decides.

    Prefect's own client asks: it knows the certificates and what the server, or what stands before it, wants to be
    told. Raises PrefectError after `patience` seconds, and at once where the server's certificate is not trusted.
    """
    from ..prefect_api.address import configured_api_url
    from ..prefect_api.client import Refused, connect

    if configured_api_url() is None:
        return
    deadline = time.monotonic() + patience
    async with connect(settings.model_copy(update={"api_patience": 0.0})) as api:
        while True:
            try:
                await api.get("/health")
                return
            except PrefectError as error:
                if isinstance(error, Refused) and error.status < 500:
                    return  # it is there: what it minds, Prefect's worker says
                if "CERTIFICATE_VERIFY_FAILED" in str(error.__context__):
                    hint = "PREFECT_API_SSL_CERT_FILE names the certificates to trust."
                    raise PrefectUnreachable(f"the certificate of {api.url} is not trusted", hint=hint) from None
                if time.monotonic() > deadline:
                    raise
            await asyncio.sleep(0.2)
