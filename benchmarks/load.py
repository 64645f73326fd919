"""A caller that costs little: many connections, each sending one request after another, over plain sockets."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit


@dataclass
class Heard:
    """What came back: seconds of each answer, how often each status, and how long it all took."""

    seconds: list[float] = field(default_factory=list)
    statuses: Counter[int] = field(default_factory=Counter)
    took: float = 0.0

    @property
    def rate(self) -> float:
        """Answers a second."""
        return len(self.seconds) / self.took


def request_bytes(url: str, headers: Mapping[str, str], body: bytes) -> bytes:
    """A POST, as it goes over the wire."""
    parts = urlsplit(url)
    lines = [f"POST {parts.path} HTTP/1.1", f"Host: {parts.netloc}", f"Content-Length: {len(body)}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode() + body


async def load(url: str, sent: bytes, *, connections: int, seconds: float) -> Heard:
    """Send the same request over and over for so many seconds."""
    heard = Heard()
    began = time.perf_counter()
    ends = began + seconds
    await asyncio.gather(*(_caller(url, sent, ends, heard) for _ in range(connections)))
    heard.took = time.perf_counter() - began
    return heard


async def _caller(url: str, sent: bytes, ends: float, heard: Heard) -> None:
    parts = urlsplit(url)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    try:
        while (began := time.perf_counter()) < ends:
            writer.write(sent)
            heard.statuses[await _answer(reader)] += 1
            heard.seconds.append(time.perf_counter() - began)
    finally:
        writer.close()


async def _answer(reader: asyncio.StreamReader) -> int:
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    at = head.find(b"content-length:")
    if at >= 0:
        await reader.readexactly(int(head[at + 15 : head.index(b"\r\n", at)]))
    return int(head[9:12])
