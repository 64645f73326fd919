"""What every request passes before anything else looks at it, and what every answer says besides its own."""

from __future__ import annotations

import asyncio
from collections.abc import MutableMapping
from typing import Any

from fastapi import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .body import READ_SECONDS
from .problems import problem

MAX_HEADERS = 32 * 1024
"""Bytes of all names and values together."""
MAX_HEADER_COUNT = 100
MAX_TARGET = 8 * 1024
"""Bytes of path and query."""

# Of two, this gateway may take one and a proxy in front of it the other.
_ONCE = {b"content-type", b"authorization", b"host", b"transfer-encoding", b"content-length", b"expect"}

_CLOSE = {"Connection": "close"}
_USUAL = [
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cache-control", b"no-store"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
]


class Front:
    """Refuses what is too large or can be read in two ways; bounds every body; adds the usual headers to answers."""

    def __init__(self, app: ASGIApp, max_body: int) -> None:
        self._app = app
        self._max_body = max_body

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def say(message: Message) -> None:
            if message["type"] == "http.response.start":
                said = {name.lower() for name, _ in message["headers"]}
                message["headers"] = [*message["headers"], *(usual for usual in _USUAL if usual[0] not in said)]
            await send(message)

        if (refusal := _refusal(scope)) is not None:
            status, why = refusal
            await problem(status, why, _CLOSE)(scope, receive, say)
        elif scope["path"].startswith("/hooks/"):  # each webhook has its own bounds
            await self._app(scope, receive, say)
        else:
            await self._app(scope, _Bounded(receive, self._max_body), say)


class _Bounded:
    """A `receive` of which at most so many bytes come, and in time. Raises HTTPException 413 or 408 otherwise."""

    def __init__(self, receive: Receive, limit: int) -> None:
        self._receive = receive
        self._limit = self._left = limit
        self._until: float | None = asyncio.get_running_loop().time() + READ_SECONDS

    async def __call__(self) -> MutableMapping[str, Any]:
        try:
            async with asyncio.timeout_at(self._until):
                message = await self._receive()
        except TimeoutError:
            raise HTTPException(408, f"the body did not arrive within {READ_SECONDS:g} seconds", _CLOSE) from None
        if message["type"] == "http.request":
            self._left -= len(message.get("body", b""))
            if self._left < 0:
                raise HTTPException(413, f"the body is larger than {self._limit} bytes", _CLOSE)
            if not message.get("more_body", False):
                self._until = None  # from here on it only tells that the caller has gone
        return message


def _refusal(scope: Scope) -> tuple[int, str] | None:
    if scope["http_version"] not in ("1.0", "1.1"):
        return 505, "allowed: HTTP/1.1"
    headers: list[tuple[bytes, bytes]] = scope["headers"]
    if len(headers) > MAX_HEADER_COUNT or sum(len(name) + len(value) for name, value in headers) > MAX_HEADERS:
        return 431, f"the headers are more than {MAX_HEADER_COUNT}, or larger than {MAX_HEADERS} bytes"
    if len(scope["raw_path"]) + len(scope["query_string"]) > MAX_TARGET:
        return 414, f"the address is longer than {MAX_TARGET} bytes"
    names = [name for name, _ in headers if name in _ONCE]
    if len(names) > len(set(names)):
        return 400, "a header that may come once came twice"
    if b"transfer-encoding" in names and (b"content-length" in names or scope["http_version"] != "1.1"):
        return 400, "Transfer-Encoding with a Content-Length or in HTTP/1.0 is not taken"
    return None
