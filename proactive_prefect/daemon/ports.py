"""Ports of this machine: a free one near the wished for, and who listens on one."""

from __future__ import annotations

import socket

import psutil


def choose_port(host: str, wished: int) -> int:
    """`wished` if nothing listens there, else a free port that the system picks."""
    for port in (wished, 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, port))
            except OSError:
                continue
            chosen: int = probe.getsockname()[1]
            return chosen
    raise OSError(f"no free port on {host}")


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
