"""The one way to the Prefect API: paced, patient, with errors that a user can read.

The embedded server's database answers 503 or breaks off under bursts; so every call waits its turn
(`PROACTIVE_API_CONCURRENCY` at once) and is tried again until nothing has been answered for `PROACTIVE_API_PATIENCE`
seconds. Prefect's own client would wait 2, 4, 8, … seconds between tries, holding the turn: its retries are off.
Every call made here must therefore bear being made twice: creations carry an idempotency key or a unique name.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import httpx
from prefect.client.orchestration import PrefectClient, get_client
from prefect.context import SettingsContext, get_settings_context
from prefect.exceptions import PrefectHTTPStatusError
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception, wait_random_exponential

from ..errors import PrefectError, PrefectUnreachable
from ..settings import Settings
from .links import without_userinfo

_LONGEST = 900.0  # seconds for one call, however busy the server is
_AWAY = wait_random_exponential(multiplier=0.2, max=5)
BUSY = {408, 429, 500, 502, 503, 504}


class Refused(PrefectError):
    """Prefect answered with an error: `status` is the HTTP status, `detail` what Prefect said."""

    def __init__(self, status: int, detail: str, path: str) -> None:
        self.status = status
        self.detail = detail
        super().__init__(f"Prefect answered {status} to {path}: {detail}")


class Busy(Refused):
    """Prefect itself said that it cannot now, and nothing has happened: its database was locked, as a rule."""


class PrefectApi:
    """An open connection to the Prefect API. `client` is Prefect's own, for what it does well by itself."""

    def __init__(self, client: PrefectClient, settings: Settings, within: float | None = None) -> None:
        self.client = client
        # For people and logs: Prefect's client keeps the credentials that may be in it.
        self.url = without_userinfo(str(client.api_url))
        self.concurrency = settings.api_concurrency
        self.longest = max(_LONGEST, settings.api_patience)
        """Seconds for one call, however busy the server is."""
        self.groups: dict[str, Any] = {}
        """Who creates runs together with others, by deployment."""
        self._turn = asyncio.Semaphore(self.concurrency)
        self._patience = settings.api_patience
        self._within = within
        self._answered = time.monotonic()
        current = get_settings_context()
        # Prefect's own way to change a setting validates all of them, which takes 70 ms.
        client_settings = current.settings.client.model_copy(update={"max_retries": 0})
        once = current.settings.model_copy(update={"client": client_settings})
        self._without_retries = partial(SettingsContext, profile=current.profile, settings=once)

    async def get(self, path: str, **params: Any) -> Any:
        """GET `path` and return its JSON (None for an empty answer). Raises Refused, PrefectUnreachable."""
        return await self.call("GET", path, params=params or None)

    async def post(self, path: str, json: Any = None) -> Any:
        """POST `json` to `path`; the call must bear being made twice. Raises Refused, PrefectUnreachable."""
        return await self.call("POST", path, json=json)

    async def patch(self, path: str, json: Any) -> Any:
        """PATCH `path`. Raises Refused, PrefectUnreachable."""
        return await self.call("PATCH", path, json=json)

    async def delete(self, path: str) -> Any:
        """DELETE `path`; one that is gone already is no error. Raises Refused, PrefectUnreachable."""
        try:
            return await self.call("DELETE", path)
        except Refused as refused:
            if refused.status == 404:
                return None
            raise

    async def call(self, method: Any, path: Any, *, json: Any = None, params: Any = None) -> Any:
        """Make one call, in turn; again and again while Prefect is busy, or away for less than the patience set."""
        began = time.monotonic()
        attempts = AsyncRetrying(
            stop=self._is_away,
            wait=_pause,
            retry=retry_if_exception(_is_passing),
            reraise=True,
        )
        try:
            async for attempt in attempts:
                with attempt:
                    async with self._turn:
                        if self._within is not None and self._silent_since(began) >= self._within:
                            raise httpx.ReadTimeout("nobody was answered while this call waited for its turn")
                        try:
                            with self._without_retries():
                                response = await self.client.request(method, path, json=json, params=params)
                        except PrefectHTTPStatusError as error:
                            if _is_prefects_own(error.response):
                                self._answered = time.monotonic()
                            raise
                    self._answered = time.monotonic()
                    return response.json() if response.content else None
        except PrefectHTTPStatusError as error:
            kind = Busy if _is_locked(error.response) else Refused
            raise kind(error.response.status_code, _detail(error.response), f"{method} {path}") from None
        except httpx.HTTPError as error:
            raise PrefectUnreachable(
                f"no answer from the Prefect API at {self.url} ({type(error).__name__})",
                hint="Is the server up? `proactive up` starts one; PREFECT_API_URL names another.",
            ) from None
        raise AssertionError("unreachable: the last attempt returns or raises")

    def _is_away(self, attempt: RetryCallState) -> bool:
        """Whether nothing has come back for too long. A server that answers, if only that it is busy, is not away."""
        silent = self._silent_since(attempt.start_time)
        return silent >= self._patience or time.monotonic() - attempt.start_time >= self.longest

    def _silent_since(self, began: float) -> float:
        """Seconds for which nothing has come back to a call that began then, nor to any other."""
        return time.monotonic() - max(began, self._answered)


@asynccontextmanager
async def connect(settings: Settings | None = None, *, within: float | None = None) -> AsyncIterator[PrefectApi]:
    """Open the Prefect API that Prefect's own settings name (`PREFECT_API_URL`, profile, Cloud key).

    `within`: seconds that the server may say nothing to one try, for callers who wait; else as long as Prefect allows.
    """
    async with get_client(httpx_settings={"timeout": httpx.Timeout(within)} if within else None) as client:
        yield PrefectApi(client, settings or Settings(), within)


def gap(tries: int) -> float:
    """Seconds to wait where Prefect's embedded database was locked: few, and spread, so that callers differ.

    A transaction of Prefect's that creates runs reads before it writes, and SQLite lets it write only if nobody else
    has written in between. Workers that start and end runs write all the time, and wait in line for it; so who creates
    runs finds a gap between them only by asking again and again, soon: who waits ever longer starves.
    """
    return random.uniform(0.05, min(2.0, 0.4 + 0.1 * tries))  # noqa: S311 - a spread, no secret


def _pause(attempt: RetryCallState) -> float:
    error = attempt.outcome.exception() if attempt.outcome else None
    if isinstance(error, PrefectHTTPStatusError) and _is_locked(error.response):
        return gap(attempt.attempt_number)
    return _AWAY(attempt)


def _is_passing(error: BaseException) -> bool:
    if isinstance(error, PrefectHTTPStatusError):
        return error.response.status_code in BUSY
    return isinstance(error, httpx.TransportError)


def _is_prefects_own(response: httpx.Response) -> bool:
    """Whether Prefect itself said so, and not a proxy in front of it: who says "busy" is not away."""
    return response.status_code in (429, 503) and response.headers.get("content-type", "").startswith(
        "application/json"
    )


def _is_locked(response: httpx.Response) -> bool:
    return response.status_code == 503 and _is_prefects_own(response)


def _detail(response: httpx.Response) -> str:
    try:
        detail = response.json()["detail"]
    except (ValueError, KeyError, TypeError):
        detail = response.text
    return str(detail)[:500]
