"""Calls to addresses that somebody else has chosen: to the public internet, and to what the operator allows.

A name is resolved once, its addresses are checked, and the connection goes to one that was checked: no second answer of
a name server, and no redirect, leads anywhere else. The name stays in the Host header and in TLS, where the certificate
is checked against it.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Sequence
from urllib.request import getproxies, proxy_bypass

import httpx

from ..networks import Address, Network, is_public, read_address, within

CONNECT_SECONDS = 5.0
"""That one of several addresses has to take the connection, before the next one is tried."""


class NotAllowed(httpx.TransportError):
    """The address is on this machine or in a network that actions may not call."""


class OutboundTransport(httpx.AsyncHTTPTransport):
    """Connects to addresses that are public, or in one of the networks `allowed`.

    Raises NotAllowed for any other, and httpx's errors. Through a `proxy` of the operator's it is the proxy that
    resolves the name; what can be resolved here is checked all the same.
    """

    def __init__(self, allowed: Sequence[Network], proxy: str | None = None) -> None:
        super().__init__(proxy=proxy)
        self._allowed = tuple(allowed)
        self._through_proxy = proxy is not None

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        host = _host(request)
        try:
            addresses = await _resolve(host, request.url.port)
        except OSError as error:
            if self._through_proxy:  # names of the outside may be known to the proxy only
                return await super().handle_async_request(request)
            raise httpx.ConnectError(f"{host} has no address: {error.strerror or error}", request=request) from None
        open_to = [address for address in addresses if is_public(address) or within(address, self._allowed)]
        if not open_to:
            where = host if read_address(host) else f"{host} ({addresses[0]})"
            raise NotAllowed(f"{where} is not on the public internet", request=request)
        if self._through_proxy:
            return await super().handle_async_request(request)
        for address in open_to[:-1]:
            try:
                return await super().handle_async_request(_to(address, request, CONNECT_SECONDS))
            except (httpx.ConnectError, httpx.ConnectTimeout):
                continue
        return await super().handle_async_request(_to(open_to[-1], request))


def outbound(url: httpx.URL, allowed: Sequence[Network]) -> OutboundTransport:
    """The transport for a call to `url`: through the proxy that the environment names for it, if there is one."""
    proxies = getproxies()
    proxy = proxies.get(url.scheme) or proxies.get("all")
    if not proxy or proxy_bypass(url.netloc.decode("ascii")):
        return OutboundTransport(allowed)
    return OutboundTransport(allowed, proxy if "://" in proxy else f"http://{proxy}")


async def leads_inside(url: str, allowed: Sequence[Network]) -> bool:
    """Whether a call of `url` would reach this machine or a private network that is not one of `allowed`.

    What is no http address, or has no address now, leads nowhere.
    """
    try:
        parsed = httpx.URL(url)
        if parsed.scheme not in ("http", "https") or not parsed.host:
            return False
        addresses = await _resolve(parsed.raw_host.decode("ascii"), parsed.port)
    except (httpx.InvalidURL, OSError):
        return False
    return any(not is_public(address) and not within(address, allowed) for address in addresses)


async def _resolve(host: str, port: int | None) -> list[Address]:
    if (address := read_address(host)) is not None:
        return [address]
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    addresses = [read_address(str(place[0])) for *_, place in found]
    return list(dict.fromkeys(address for address in addresses if address is not None))


def _host(request: httpx.Request) -> str:
    return request.url.raw_host.decode("ascii")


def _to(address: Address, request: httpx.Request, connect: float | None = None) -> httpx.Request:
    """The same request, Host header and all, to that address; with `connect`, only if it answers within the seconds."""
    extensions = dict(request.extensions)
    if read_address(host := _host(request)) is None:
        extensions["sni_hostname"] = host
    if connect is not None:
        extensions["timeout"] = {**extensions.get("timeout", {}), "connect": connect}
    url = request.url.copy_with(host=str(address))
    return httpx.Request(request.method, url, headers=request.headers, stream=request.stream, extensions=extensions)
