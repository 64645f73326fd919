"""Ports of this machine: a free one near the wished for, who listens on one, and the way to it."""

from __future__ import annotations

import contextlib
import errno
import socket

import psutil

# A name in /etc/hosts may have an IPv6 address where IPv6 is off: who listens on the name leaves that one out too.
_NOT_HERE = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)
_ALL_ADDRESSES = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - looked up, not bound


def choose_port(host: str, wished: int) -> int:
    """`wished` if nothing listens there, else a free port that the system picks. Raises OSError if none is free."""
    for port in (wished, 0):
        with contextlib.suppress(OSError):
            if free := _free(host, port):
                return free
    raise OSError(f"no free port on {host}")


def _free(host: str, port: int) -> int:
    """`port`, or any for 0, if it is free on each address of `host`; 0 if it has none here. Raises OSError if not."""
    free = 0
    with contextlib.ExitStack() as probes:
        for family, kind, protocol, _, address in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM):
            try:
                probe = probes.enter_context(socket.socket(family, kind, protocol))
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind((address[0], free or port, *address[2:]))
            except OSError as error:
                if error.errno not in _NOT_HERE:
                    raise
            else:
                free = probe.getsockname()[1]
    return free


def listens(pid: int, port: int) -> bool:
    """Whether process `pid` itself listens on `port`: an answer on that port is its own, and not a neighbour's."""
    try:
        connections = psutil.Process(pid).net_connections(kind="tcp")
    except psutil.Error:
        return False
    return any(
        connection.status == psutil.CONN_LISTEN and connection.laddr and connection.laddr[1] == port
        for connection in connections
    )


def url_at(host: str, port: int) -> str:
    """How this machine reaches what listens on `host`, which may stand for all of its addresses."""
    reach = _ALL_ADDRESSES.get(host, host)
    return f"http://[{reach}]:{port}" if ":" in reach else f"http://{reach}:{port}"
