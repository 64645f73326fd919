"""Addresses and networks: what people write, and what is public."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proactive_prefect.networks import is_public, read_address, read_network, within

NOT_PUBLIC = [
    "0.0.0.0", "0.1.2.3", "10.0.0.1", "100.64.0.1", "127.0.0.1", "127.255.255.254", "169.254.169.254", "172.16.0.1",
    "172.31.255.255", "192.0.0.1", "192.0.2.1", "192.168.1.1", "198.18.0.1", "198.51.100.1", "203.0.113.1",
    "224.0.0.1", "239.255.255.250", "240.0.0.1", "255.255.255.255",
    "::", "::1", "::7f00:1", "::ffff:127.0.0.1", "::ffff:169.254.169.254", "::ffff:10.0.0.1", "64:ff9b::7f00:1",
    "64:ff9b::a9fe:a9fe", "64:ff9b:1::1", "100::1", "2001:db8::1", "2002:7f00:1::", "2002:a9fe:a9fe::1",
    "2001:0:4136:e378:8000:63bf:80ff:fffe", "fc00::1", "fd00:ec2::254", "fe80::1", "fec0::1", "ff02::1", "ff0e::1",
]  # fmt: skip
PUBLIC = [
    "1.1.1.1", "8.8.8.8", "93.184.215.14", "172.32.0.1", "192.30.252.1", "::ffff:8.8.8.8", "64:ff9b::808:808",
    "2002:808:808::1", "2606:4700::1111", "2a00:1450:4001:82a::200e",
]  # fmt: skip


@pytest.mark.parametrize("text", NOT_PUBLIC)
def test_this_machine_and_its_networks_are_not_public(text: str) -> None:
    """However an address is written, mapped or translated, what it leads to decides."""
    assert not is_public(ipaddress.ip_address(text))


@pytest.mark.parametrize("text", PUBLIC)
def test_addresses_of_the_internet_are_public(text: str) -> None:
    """Also where a translator stands between."""
    assert is_public(ipaddress.ip_address(text))


@given(st.ip_addresses(v=4))
def test_an_ipv4_address_is_as_public_in_any_ipv6_form(address: ipaddress.IPv4Address) -> None:
    """Mapped, translated (NAT64) and 6to4 forms of an address are exactly as public as it is."""
    number = int(address)
    for form in (0xFFFF << 32 | number, 0x64FF9B << 96 | number, 0x2002 << 112 | number << 80 | 1):
        assert is_public(ipaddress.IPv6Address(form)) == is_public(address)


def test_an_address_is_read_without_its_zone_and_mapping() -> None:
    """A peer on a dual-stack socket is its IPv4 address; what is no address is None."""
    assert str(read_address("::ffff:192.0.2.7")) == "192.0.2.7"
    assert str(read_address("fe80::1%eth0")) == "fe80::1"
    for text in ("", "example.com", "1.2.3", "1.2.3.4.5", "01.2.3.4", "0x7f.1", "2130706433", "_hidden", "::g"):
        assert read_address(text) is None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("example.com", "'example.com' is not a network; allowed: a network or an address, such as"),
        ("", "'' is not a network"),
        ("10.0.0.0/33", "is not a network"),
        ("10.0.0.1/8", "'10.0.0.1/8' has bits beyond its network; allowed: '10.0.0.0/8'"),
    ],
)
def test_what_is_no_network_is_told_with_what_is_allowed(text: str, said: str) -> None:
    """A network with a host in it is a mistake, not another network."""
    with pytest.raises(ValueError, match=said.replace("(", r"\(")):
        read_network(text)


def test_an_address_is_within_networks_of_its_own_kind() -> None:
    """Kinds are not mixed; nobody's address is nowhere."""
    networks = [read_network("192.0.2.0/24"), read_network("2001:db8::/32"), read_network("198.51.100.7")]
    for text, expected in (
        ("192.0.2.255", True), ("192.0.3.0", False), ("2001:db8::1", True), ("2001:db9::1", False),
        ("198.51.100.7", True), ("198.51.100.8", False),
    ):  # fmt: skip
        assert within(read_address(text), networks) is expected
    assert not within(None, networks)
