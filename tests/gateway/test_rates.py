"""Rates: exact where it matters, and bounded whoever calls."""

from __future__ import annotations

import ipaddress
import math

from hypothesis import given
from hypothesis import strategies as st

from proactive_prefect.gateway.rates import BUCKETS, Rates, bucket


class Clock:
    """A clock that stands still until it is set."""

    now = 7200.0

    def __call__(self) -> float:
        return self.now


def test_a_rate_lets_so_many_pass_and_tells_how_long_to_wait() -> None:
    """Looking counts nothing; each name is counted for itself."""
    rates = Rates(Clock())
    for _ in range(10):
        assert rates.look("3/hour", "webhook", "a") == 0
    assert [rates.take("3/hour", "webhook", "a") for _ in range(3)] == [0, 0, 0]
    assert 1 <= rates.take("3/hour", "webhook", "a") <= 3600
    assert 1 <= rates.look("3/hour", "webhook", "a") <= 3600
    assert rates.take("3/hour", "webhook", "b") == 0
    assert rates.take("3/day", "webhook", "a") == 0


def test_after_the_wait_that_is_told_one_more_passes_and_not_a_second_before() -> None:
    """A caller that comes as asked is heard."""
    for moment in (0.0, 13.5, 59.9, 75.0):
        clock = Clock()
        rates = Rates(clock)
        for _ in range(4):
            assert rates.take("4/minute", "a") == 0
        clock.now += moment
        wait = rates.look("4/minute", "a")
        if moment < 60:
            assert wait == math.ceil(60 - moment)
            clock.now += wait
        wait = rates.look("4/minute", "a")
        clock.now += max(0, wait - 1.01)
        assert bool(rates.look("4/minute", "a")) == bool(wait)
        clock.now += 1.01
        assert rates.take("4/minute", "a") == 0


@given(st.lists(st.floats(0, 30), min_size=1, max_size=200), st.integers(1, 20))
def test_never_do_twice_as_many_pass_in_any_period(pauses: list[float], amount: int) -> None:
    """And in each period of the clock no more than the rate says."""
    clock = Clock()
    rates = Rates(clock)
    passed: list[float] = []
    for pause in pauses:
        clock.now += pause
        if rates.take(f"{amount}/minute", "a") == 0:
            passed.append(clock.now)
    for begin in passed:
        assert sum(begin <= at < begin + 60 for at in passed) < 2 * amount
        assert sum(at // 60 == begin // 60 for at in passed) <= amount


def test_nothing_passes_a_rate_of_none() -> None:
    """`0/minute` is a webhook that takes no calls."""
    assert Rates().take("0/minute", "webhook", "a") >= 1


def test_no_number_of_callers_fills_the_memory() -> None:
    """A hundred thousand addresses share so many counters, and each counter is one number for each window."""
    names = {bucket(ipaddress.IPv4Address(0x08000000 + number)) for number in range(100_000)}
    assert BUCKETS * 0.99 < len(names) <= BUCKETS


def test_an_ipv6_site_is_one_caller() -> None:
    """A caller who has a /64 has 2^64 addresses: they count together."""
    site = ipaddress.IPv6Network("2001:db8:1:2::/64")
    assert len({bucket(site[number]) for number in (0, 1, 2**40, 2**64 - 1)}) == 1
    others = {bucket(ipaddress.IPv6Address(int(site[0]) + (number << 64))) for number in range(50)}
    assert len(others) > 40
    assert bucket(None) == bucket(None)
