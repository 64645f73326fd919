"""The way of every command to the server: the one that `up` started here, or the one that Prefect's settings name."""

from __future__ import annotations

import contextlib
import os
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

from ..errors import PrefectUnreachable
from ..settings import Settings
from .server import may_name_an_api
from .upfile import read_up_file

if TYPE_CHECKING:
    from ..prefect_api.client import PrefectApi

_HINT = "`proactive up` starts a server; PREFECT_API_URL names another."
_FIRST_ANSWER = 3.0  # seconds: a person waits, and a server that is up answers


def find_server(settings: Settings) -> None:
    """Point Prefect, before it is imported, at the server of the `up` that runs here; PREFECT_API_URL comes first."""
    if not os.environ.get("PREFECT_API_URL") and (running := read_up_file(settings.home)) is not None:
        os.environ["PREFECT_API_URL"] = running["prefect_api_url"]


def require_server() -> None:
    """Raise PrefectUnreachable if no API is named: Prefect would start an empty server of its own in the process."""
    if may_name_an_api():
        from ..prefect_api.address import configured_api_url

        if configured_api_url() is not None:
            return
    raise PrefectUnreachable("no Prefect server is running for this project", hint=_HINT)


@contextlib.asynccontextmanager
async def connected(settings: Settings) -> AsyncIterator[PrefectApi]:
    """Prefect's API, proved to answer. Raises PrefectUnreachable within seconds if it does not, or if none is named."""
    require_server()
    from ..prefect_api.client import connect

    async with connect(settings.model_copy(update={"api_patience": _FIRST_ANSWER})) as api:
        if await api.client.api_healthcheck() is not None:
            raise PrefectUnreachable(f"no answer from the Prefect API at {api.url}", hint=_HINT)
    async with connect(settings) as api:
        yield api
