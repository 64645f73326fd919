"""From which address a call comes: the peer's, or what the trusted proxies in front of us say."""

from __future__ import annotations

import re
from collections.abc import Iterator

from starlette.requests import HTTPConnection

from ..networks import Address, read_address, within
from ..settings import Settings

# RFC 7239: for=192.0.2.7, for="192.0.2.7:4711", for="[2001:db8::7]:4711"; anything else is no address.
_FOR = re.compile(r"(?:^|;)\s*for\s*=\s*(?:\"([^\"]*)\"|([^\";,\s]*))\s*(?=;|$)", re.IGNORECASE)
_WITH_PORT = re.compile(r"\[([^\[\]]*)\](?::\w+)?|([^:]+)(?::\w+)?")
MOST_HOPS = 20


def origin(request: HTTPConnection, settings: Settings) -> Address | None:
    """The address that the call comes from; None where there is none, as on a Unix socket.

    Only what trusted proxies wrote is believed: the header is read from its end, and the first address in it that is
    not a trusted proxy's is the caller's. Where that is no address, the call comes from the last proxy that is known.
    """
    peer = read_address(request.client.host) if request.client else None
    if not within(peer, settings.trusted_proxies):
        return peer
    for hop in _hops(request, settings.proxy_header):
        if hop is None:
            break
        peer = hop
        if not within(peer, settings.trusted_proxies):
            break
    return peer


def _hops(request: HTTPConnection, header: str) -> Iterator[Address | None]:
    said = ",".join(request.headers.getlist(header)).rsplit(",", MOST_HOPS)
    for part in reversed(said[-MOST_HOPS:]):
        if header == "forwarded":
            found = _FOR.findall(part.strip())
            part = "".join(found[0]) if len(found) == 1 else ""
        match = _WITH_PORT.fullmatch(part.strip())
        # An IPv6 address without brackets has no port.
        yield read_address(match[1] or match[2]) if match else read_address(part.strip())
