"""How often is too often: calls counted by webhook and by address, in a memory that no number of callers can fill."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from functools import cache

from ..networks import Address

# Addresses share counters once there are more of them: who would fill these has to call from as many networks.
BUCKETS = 4096
_IPV6_SITE = 8  # bytes: a site has a /64, with any number of addresses in it
_SECONDS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


class Rates:
    """Counters of one gateway, each of a rate such as "60/minute" and a name. Several gateways count for themselves.

    A counter has two numbers, the calls of this period and of the last one, which weighs less the longer it is over.
    That is the count of the last `period` seconds as far as calls come evenly, at a cost that no rate changes. (The
    library `limits` does the same in 30 to 60 µs, with a thread for each ten milliseconds; this takes 3 µs.)
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._counts: dict[tuple[str, ...], tuple[float, int, int]] = {}

    def take(self, rate: str, *name: str) -> int:
        """Count one more, if the rate allows it: 0; else the whole seconds until it may."""
        wait, window = self._look(rate, name)
        if not wait:
            number, before, count = window
            self._counts[(rate, *name)] = number, before, count + 1
        return wait

    def look(self, rate: str, *name: str) -> int:
        """The same without counting."""
        return self._look(rate, name)[0]

    def _look(self, rate: str, name: tuple[str, ...]) -> tuple[int, tuple[float, int, int]]:
        amount, period = _read(rate)
        number, passed = divmod(self._clock(), period)
        then, before, count = self._counts.get((rate, *name), (number, 0, 0))
        if then != number:
            before, count = (count if then == number - 1 else 0), 0
        window = number, before, count
        if before * (1 - passed / period) + count <= amount - 1:
            return 0, window
        # Until enough of the last period is over; else until this one is.
        enough = period * (1 - (amount - 1 - count) / before) - passed if count < amount and before else period - passed
        return max(1, math.ceil(min(enough, period))), window


def bucket(address: Address | None) -> str:
    """The name that calls from this address are counted under, with all others of its IPv6 site."""
    packed = address.packed if address is not None else b""
    # Salted by Python for each process: nobody can choose addresses that share a counter with somebody else's.
    return str(hash(packed if len(packed) <= 4 else packed[:_IPV6_SITE]) % BUCKETS)


@cache
def _read(rate: str) -> tuple[int, float]:
    amount, _, unit = rate.partition("/")
    return int(amount), _SECONDS[unit[0]]
