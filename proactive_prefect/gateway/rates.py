"""How often is too often: calls counted by webhook and by address, in a memory that no number of callers can fill."""

from __future__ import annotations

import math
import time
from functools import cache

from limits import (
    RateLimitItem,
    RateLimitItemPerDay,
    RateLimitItemPerHour,
    RateLimitItemPerMinute,
    RateLimitItemPerSecond,
)
from limits.storage import MemoryStorage
from limits.strategies import SlidingWindowCounterRateLimiter

from ..networks import Address

# Addresses share counters once there are more of them: who would fill these has to call from as many networks.
BUCKETS = 4096
_IPV6_SITE = 8  # bytes: a site has a /64, with any number of addresses in it

_UNITS: dict[str, type[RateLimitItem]] = {
    "s": RateLimitItemPerSecond,
    "m": RateLimitItemPerMinute,
    "h": RateLimitItemPerHour,
    "d": RateLimitItemPerDay,
}


class Rates:
    """Counters of one gateway, each of a rate such as "60/minute" and a name. Several gateways count for themselves."""

    def __init__(self) -> None:
        self._limiter = SlidingWindowCounterRateLimiter(MemoryStorage())

    def take(self, rate: str, *name: str) -> int:
        """Count one more, if the rate allows it: 0; else the whole seconds until it does."""
        return 0 if self._limiter.hit(_item(rate), *name) else self._wait(rate, *name)

    def look(self, rate: str, *name: str) -> int:
        """The same without counting."""
        return 0 if self._limiter.test(_item(rate), *name) else self._wait(rate, *name)

    def _wait(self, rate: str, *name: str) -> int:
        return max(1, math.ceil(self._limiter.get_window_stats(_item(rate), *name).reset_time - time.time()))


def bucket(address: Address | None) -> str:
    """The name that calls from this address are counted under, with all others of its IPv6 site."""
    packed = address.packed if address is not None else b""
    # Salted by Python for each process: nobody can choose addresses that share a counter with somebody else's.
    return str(hash(packed if len(packed) <= 4 else packed[:_IPV6_SITE]) % BUCKETS)


@cache
def _item(rate: str) -> RateLimitItem:
    amount, _, unit = rate.partition("/")
    return _UNITS[unit[0]](int(amount))
