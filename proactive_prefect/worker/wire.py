"""Messages between the worker, its forkserver and its runs: JSON, each behind its length, over a socket pair.

Two ways to read and write the same frames: blocking (the forkserver and the runs) and asyncio (the worker).
"""

from __future__ import annotations

import asyncio
import json
import socket
import struct
from typing import Any

_LENGTH = struct.Struct("!I")

Message = dict[str, Any]


def _frame(message: Message) -> bytes:
    body = json.dumps(message).encode()
    return _LENGTH.pack(len(body)) + body


def _receive_exactly(sock: socket.socket, size: int) -> bytes:
    parts = bytearray()
    while len(parts) < size:
        part = sock.recv(size - len(parts))
        if not part:
            raise EOFError
        parts.extend(part)
    return bytes(parts)


def send(sock: socket.socket, message: Message) -> None:
    """Write one message. Raises OSError if the other side is gone."""
    sock.sendall(_frame(message))


def receive(sock: socket.socket) -> Message:
    """Read one message. Raises EOFError if the other side is gone."""
    try:
        (size,) = _LENGTH.unpack(_receive_exactly(sock, _LENGTH.size))
        message: Message = json.loads(_receive_exactly(sock, size))
    except ConnectionResetError as gone:
        raise EOFError from gone
    return message


class Channel:
    """The worker's end of a socket pair."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def open(cls, sock: socket.socket) -> Channel:
        """Take over `sock`; it is closed with the channel."""
        return cls(*await asyncio.open_connection(sock=sock))

    def send(self, message: Message) -> None:
        """Write one message; one to a side that is gone is dropped, since its end is noticed by reading."""
        if not self._writer.is_closing():
            self._writer.write(_frame(message))

    async def receive(self) -> Message:
        """Read one message. Raises EOFError if the other side is gone."""
        try:
            (size,) = _LENGTH.unpack(await self._reader.readexactly(_LENGTH.size))
            message: Message = json.loads(await self._reader.readexactly(size))
        except (asyncio.IncompleteReadError, ConnectionError) as gone:
            raise EOFError from gone
        return message

    def close(self) -> None:
        """Close this end; the other side reads the end of the stream."""
        self._writer.close()
