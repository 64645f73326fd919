"""The gateway's connections: how many there may be, and how long each may take to say what it wants.

Uvicorn waits for ever for the rest of a request's head, and for the rest of a body that was answered already. Each
would cost a slow caller nothing, and us a connection.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

from ..networks import read_address, within
from ..settings import Settings
from .rates import bucket

log = logging.getLogger("proactive.gateway")

_TELL_SECONDS = 60.0
HEAD_SECONDS = 10.0
"""In which the head of a request must have come, and the rest of a request that was answered before its end."""

_LINES = "HTTP/1.1 {}\r\nConnection: close\r\nContent-Length: 0\r\n{}\r\n"
_LATE = _LINES.format("408 Request Timeout", "").encode()
_FULL = _LINES.format("503 Service Unavailable", "Retry-After: 5\r\n").encode()
_TOO_MANY = _LINES.format("429 Too Many Requests", "Retry-After: 5\r\n").encode()


class Connections:
    """How many connections there are, in all and from each address; bound by the settings."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._open = 0
        self._of: Counter[str] = Counter()
        self._told = -_TELL_SECONDS

    def admit(self, host: str | None) -> tuple[bytes | None, str | None]:
        """Whether one more may come from `host`: what to answer if not, and the name to give to `release`."""
        peer = read_address(host or "")
        # What comes through a proxy comes from many.
        name = None if peer is None or within(peer, self._settings.trusted_proxies) else bucket(peer)
        self._open += 1
        if name is not None:
            self._of[name] += 1
        if self._open > self._settings.max_connections:
            self._tell("PROACTIVE_MAX_CONNECTIONS", host)
            return _FULL, name
        if name is not None and self._of[name] > self._settings.max_caller_connections:
            self._tell("PROACTIVE_MAX_CALLER_CONNECTIONS", host)
            return _TOO_MANY, name
        return None, name

    def release(self, name: str | None) -> None:
        """One that `admit` was asked about is gone."""
        self._open -= 1
        if name is not None:
            self._of[name] -= 1
            if not self._of[name]:
                del self._of[name]

    def _tell(self, bound: str, host: str | None) -> None:
        if time.monotonic() - self._told > _TELL_SECONDS:  # a flood must not flood the log
            self._told = time.monotonic()
            log.warning("connection.refused bound=%s address=%s open=%d", bound, host, self._open)


def connection_class(settings: Settings) -> type[H11Protocol]:
    """The class of the connections of one server, for `uvicorn.Config(http=…)`."""
    connections = Connections(settings)

    class Connection(H11Protocol):
        """One connection. While no request is being answered, a clock runs that bytes do not stop."""

        _name: str | None = None
        _refused = False
        _clock: asyncio.TimerHandle | None = None

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            refusal, self._name = connections.admit(self.client[0] if self.client else None)
            if refusal is not None:
                self._refused = True
                self._end(refusal)
            self._set_clock()

        def connection_lost(self, exc: Exception | None) -> None:
            connections.release(self._name)
            super().connection_lost(exc)
            self._stop_clock()

        def data_received(self, data: bytes) -> None:
            if not self._refused:
                super().data_received(data)
                self._set_clock()

        def on_response_complete(self) -> None:
            super().on_response_complete()
            self._set_clock()

        def _set_clock(self) -> None:
            answering = self.cycle is not None and not self.cycle.response_complete
            if answering or self.transport.is_closing():
                self._stop_clock()
            elif self._clock is None:
                self._clock = self.loop.call_later(HEAD_SECONDS, self._late)

        def _stop_clock(self) -> None:
            if self._clock is not None:
                self._clock.cancel()
                self._clock = None

        def _late(self) -> None:
            began: Any = self.cycle
            self._end(_LATE if began is None else b"")

        def _end(self, words: bytes) -> None:
            if not self.transport.is_closing():
                self.transport.write(words)
                self.transport.close()

    return Connection
