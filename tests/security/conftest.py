"""A gateway that has no Prefect: the door is there all the same, and every call can be refused."""

from __future__ import annotations

import contextlib
import os
import re
import socket
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.conftest import Server, stop
from tests.gateway.conftest import Gateway, start_gateway
from tests.support import free_port, wait_until_sync

from .tried import TRIED

# So that tests of patience take a second and not a minute; and as if Prefect had said that there are no webhooks.
HASTE = (
    "from proactive_prefect.gateway import body, connections, doors, front\n"
    "doors.Doors.known = True\n"
    "connections.HEAD_SECONDS = body.READ_SECONDS = front.READ_SECONDS = 1.0\n"
)


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """A hasty gateway with room for few connections, whose Prefect nobody ever started."""
    with without_prefect(
        tmp_path_factory.mktemp("alone"),
        PROACTIVE_MAX_CONNECTIONS="40",
        PROACTIVE_MAX_CALLER_CONNECTIONS="20",
        PROACTIVE_MAX_BODY="100000",
    ) as gateway:
        yield gateway


@contextlib.contextmanager
def without_prefect(folder: Path, **settings: str) -> Iterator[Gateway]:
    """A hasty gateway with those settings, until the block ends."""
    env = {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "PROACTIVE_"))}
    env |= {"PREFECT_HOME": str(folder), "PREFECT_API_URL": f"http://127.0.0.1:{free_port()}/api"}
    gateway = start_gateway(
        Server(env["PREFECT_API_URL"], env, folder / "none.log"),
        folder / "home",
        HASTE,
        **settings,
    )
    try:
        wait_until_sync(gateway.is_alive, what="the gateway is alive")
        yield gateway
    finally:
        stop(gateway.process)


class Line:
    """One TCP connection to a gateway, over which any bytes can be sent."""

    def __init__(self, gateway: Gateway, source: str = "127.0.0.1") -> None:
        where = urlsplit(gateway.url)
        self.socket = socket.create_connection(
            (str(where.hostname), where.port or 80), timeout=30, source_address=(source, 0)
        )

    def __enter__(self) -> Line:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def send(self, raw: bytes) -> None:
        """Send the bytes as they are; a connection that is gone already is no error."""
        TRIED["raw bytes to the gateway's socket"] += 1
        try:
            self.socket.sendall(raw)
        except (BrokenPipeError, ConnectionResetError):
            return

    def read_to_end(self) -> bytes:
        """All that comes until the gateway ends the connection; TimeoutError if it does not within 30 s."""
        heard = b""
        try:
            while part := self.socket.recv(65536):
                heard += part
        except ConnectionResetError:
            pass
        return heard

    def is_over(self) -> bool:
        """Whether the gateway has ended the connection."""
        self.socket.settimeout(0.01)
        try:
            while self.socket.recv(65536):
                continue
        except TimeoutError:
            return False
        except ConnectionResetError:
            return True
        return True


def statuses(heard: bytes) -> list[int]:
    """The status of each answer in what was heard."""
    return [int(status) for status in re.findall(rb"HTTP/1\.1 (\d{3}) ", heard)]
