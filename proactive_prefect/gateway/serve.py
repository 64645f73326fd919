"""Run the gateway: `proactive gateway`, and `proactive up`."""

from __future__ import annotations

import logging
import resource
import socket

import uvicorn

from ..errors import InputError
from ..settings import Settings
from .app import create_app
from .connections import connection_class
from .front import MAX_HEADERS
from .secrets import operator_token, read_token, same_secret

STOP_SECONDS = 3
SILENT_SECONDS = 60
"""For which a caller may leave unread what was sent; then the connection is gone."""
_OTHER_FILES = 200


def serve(settings: Settings) -> None:
    """Serve on the host and port of `settings` until SIGINT or SIGTERM; answers begun are then finished, for 3 s.

    Raises InputError if the address cannot be had, SecretMissing if the operator's token cannot.
    """
    if same_secret(operator_token(settings), read_token(settings)):
        raise InputError("PROACTIVE_TOKEN and PROACTIVE_READ_TOKEN are the same; allowed: two different texts")
    _allow_files(settings.max_connections + _OTHER_FILES)
    listener = listen(settings)
    host, port = listener.getsockname()[:2]
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    # The HTTP client's own lines, one for each call to Prefect, would bury ours.
    logging.getLogger("httpx").setLevel(logging.WARNING)
    logging.getLogger("proactive.gateway").info("gateway.listening url=http://%s:%s", host, port)
    config = uvicorn.Config(
        create_app(settings),
        # Only h11 can bound the headers, so it is chosen over the faster httptools.
        http=connection_class(settings),
        h11_max_incomplete_event_size=MAX_HEADERS,
        ws="none",
        access_log=False,  # addresses may hold tokens
        server_header=False,
        proxy_headers=False,  # `origin` reads them, where a proxy is trusted
        timeout_graceful_shutdown=STOP_SECONDS,
        log_config=None,
    )
    uvicorn.Server(config).run(sockets=[listener])


def listen(settings: Settings) -> socket.socket:
    """A socket bound to the gateway's address; port 0 gives a free one. Raises InputError if it cannot be had."""
    host, port = settings.gateway_host, settings.gateway_port
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        # asyncio turns off Nagle's algorithm, which holds answers back for 40 ms, only where the protocol is named.
        listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if hasattr(socket, "TCP_USER_TIMEOUT"):
            listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, SILENT_SECONDS * 1000)
        listener.bind(address)
    except OSError as error:
        raise InputError(
            f"the gateway cannot listen on {host}:{port}: {error.strerror or error}",
            hint="Set PROACTIVE_GATEWAY_PORT to another port (0 takes a free one), or end what uses this one.",
        ) from None
    return listener


def _allow_files(wanted: int) -> None:
    """Raise how many files this process may have open, as far as it may do that itself: each connection is one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if 0 <= soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted if hard < 0 else min(wanted, hard), hard))
