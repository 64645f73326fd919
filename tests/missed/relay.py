"""A proxy in front of Prefect that answers by itself for a while, as one does whose upstream is away."""

from __future__ import annotations

import asyncio
import contextlib
import re

from tests.ledger.proxy import Proxy

BAD_GATEWAY = ("502 Bad Gateway", "<html>502</html>")
A_PAGE = ("200 OK", "<html>please log in</html>")
FORBIDDEN = ("403 Forbidden", "<html>no</html>")


class Relay(Proxy):
    """Answers each call with `says`, a status and a page, until that is None; then it passes everything on."""

    says: tuple[str, str] | None = None

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.says is None:
            await super()._pass_on(reader, writer)
            return
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            head = await reader.readuntil(b"\r\n\r\n")
            length = re.search(rb"(?i)content-length: (\d+)", head)
            await reader.readexactly(int(length[1]) if length else 0)
            status, page = self.says
            heads = f"content-type: text/html\r\ncontent-length: {len(page)}\r\nconnection: close"
            writer.write(f"HTTP/1.1 {status}\r\n{heads}\r\n\r\n{page}".encode())
            await writer.drain()
        writer.close()
