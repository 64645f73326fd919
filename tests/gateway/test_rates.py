"""Rates: exact where it matters, and bounded whoever calls."""

from __future__ import annotations

import ipaddress

from proactive_prefect.gateway.rates import BUCKETS, Rates, bucket


def test_a_rate_lets_so_many_pass_and_tells_how_long_to_wait() -> None:
    """Looking counts nothing; each name is counted for itself."""
    rates = Rates()
    for _ in range(10):
        assert rates.look("3/hour", "webhook", "a") == 0
    assert [rates.take("3/hour", "webhook", "a") for _ in range(3)] == [0, 0, 0]
    assert 1 <= rates.take("3/hour", "webhook", "a") <= 3600
    assert 1 <= rates.look("3/hour", "webhook", "a") <= 3600
    assert rates.take("3/hour", "webhook", "b") == 0
    assert rates.take("3/day", "webhook", "a") == 0


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
