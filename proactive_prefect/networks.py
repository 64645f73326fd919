"""Internet addresses and networks as people write them, in settings, rules and headers."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

_UNICAST = IPv6Network("2000::/3")  # all that was ever given out
_NAT64 = IPv6Network("64:ff9b::/96")


@lru_cache(4096)
def read_address(text: str) -> Address | None:
    """The address that `text` is, an IPv4 one also where it is written as IPv6; None if it is none."""
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


def read_network(text: str) -> Network:
    """The network, or the single address, that `text` is. Raises ValueError that says what is allowed."""
    allowed = 'allowed: a network or an address, such as "192.0.2.0/24", "2001:db8::/32" or "192.0.2.7"'
    try:
        return ipaddress.ip_network(text.strip())
    except ValueError:
        pass
    try:
        meant = ipaddress.ip_network(text.strip(), strict=False)
    except ValueError:
        raise ValueError(f"{text!r} is not a network; {allowed}") from None
    raise ValueError(f"{text!r} has bits beyond its network; allowed: {str(meant)!r}, or a single address") from None


def within(address: Address | None, networks: Iterable[Network]) -> bool:
    """Whether the address is in one of the networks."""
    return address is not None and any(address in network for network in networks)


def is_public(address: Address) -> bool:
    """Whether the address is one of the internet: not this machine, its networks, a group, or what is reserved.

    An IPv6 address that stands for an IPv4 one (mapped, NAT64, 6to4) is as public as that.
    """
    if isinstance(address, IPv4Address):
        return address.is_global and not address.is_multicast and not address.is_reserved
    if address in _NAT64:
        return is_public(IPv4Address(int(address) & 0xFFFFFFFF))
    if (inner := address.ipv4_mapped or address.sixtofour) is not None:
        return is_public(inner)
    return address.is_global and address in _UNICAST
