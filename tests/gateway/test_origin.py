"""From where a call comes, behind proxies that are trusted and behind others."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.requests import Request

from proactive_prefect.gateway.origin import MOST_HOPS, origin
from proactive_prefect.networks import read_network
from proactive_prefect.settings import Settings

PROXIES = tuple(read_network(text) for text in ("10.0.0.0/8", "fd00::/8"))


def seen(header: str, *lines: str, peer: str | None = "10.0.0.1", name: str | None = None) -> str:
    """The origin of a call that brings those lines of the header (or of another one, by `name`)."""
    settings = Settings.model_validate({"trusted_proxies": PROXIES, "proxy_header": header})
    scope = {
        "type": "http",
        "client": (peer, 5) if peer else None,
        "headers": [((name or header).encode(), line.encode("latin-1", "replace")) for line in lines],
    }
    return str(origin(Request(scope), settings))


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ([], "10.0.0.1"),
        (["203.0.113.7"], "203.0.113.7"),
        (["1.1.1.1, 203.0.113.7"], "203.0.113.7"),
        (["1.1.1.1", "203.0.113.7"], "203.0.113.7"),
        (["1.1.1.1, 203.0.113.7, 10.0.0.2, fd00::3"], "203.0.113.7"),
        (["203.0.113.7:4711"], "203.0.113.7"),
        (["[2001:db8::7]:4711"], "2001:db8::7"),
        (["[2001:db8::7]"], "2001:db8::7"),
        (["2001:db8::7"], "2001:db8::7"),
        (["::ffff:203.0.113.7"], "203.0.113.7"),
        (["10.0.0.3, 10.0.0.2"], "10.0.0.3"),
        (["203.0.113.7, nonsense"], "10.0.0.1"),
        (["203.0.113.7, unknown, 10.0.0.2"], "10.0.0.2"),
        (["203.0.113.7,"], "10.0.0.1"),
        ([", ".join(["203.0.113.7"] + ["10.0.0.2"] * 10_000)], "10.0.0.2"),
    ],
)
def test_x_forwarded_for_is_read_from_its_end(lines: list[str], expected: str) -> None:
    """The first address from the end that no trusted proxy has is the caller's; what stands before is hearsay."""
    assert seen("x-forwarded-for", *lines) == expected


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (["for=203.0.113.7"], "203.0.113.7"),
        (["for=203.0.113.7;proto=https;by=10.0.0.1"], "203.0.113.7"),
        (['proto=https; For="[2001:db8::7]:4711"'], "2001:db8::7"),
        (['for="203.0.113.7:4711", for=10.0.0.2'], "203.0.113.7"),
        (["for=1.1.1.1", "for=203.0.113.7"], "203.0.113.7"),
        (["for=1.1.1.1;for=203.0.113.7"], "10.0.0.1"),
        (["for=_hidden"], "10.0.0.1"),
        (["for=unknown"], "10.0.0.1"),
        (["by=203.0.113.7"], "10.0.0.1"),
        (["203.0.113.7"], "10.0.0.1"),
        (['for="203.0.113.7'], "10.0.0.1"),
    ],
)
def test_forwarded_is_read_as_rfc_7239_has_it(lines: list[str], expected: str) -> None:
    """With ports, quotes and other parameters; what is not as it should be ends the reading."""
    assert seen("forwarded", *lines) == expected


def test_nobody_but_a_trusted_proxy_is_believed() -> None:
    """Neither header counts from another peer, and the header that the proxy does not write never does."""
    assert seen("x-forwarded-for", "203.0.113.7", peer="198.51.100.9") == "198.51.100.9"
    assert seen("forwarded", "for=203.0.113.7", peer="198.51.100.9") == "198.51.100.9"
    assert seen("x-forwarded-for", "for=203.0.113.7", name="forwarded") == "10.0.0.1"
    assert seen("forwarded", "203.0.113.7", name="x-forwarded-for") == "10.0.0.1"
    assert seen("x-forwarded-for", "203.0.113.7", peer=None) == "None"


@given(st.text(max_size=60), st.sampled_from(["x-forwarded-for", "forwarded"]))
def test_a_caller_cannot_put_an_address_before_its_own(said: str, header: str) -> None:
    """Whatever a caller says, the proxy's own entry behind it wins."""
    own = "203.0.113.7" if header == "x-forwarded-for" else "for=203.0.113.7"
    for lines in ([said, own], [f"{said}, {own}"]):
        assert seen(header, *lines) == "203.0.113.7"


def test_a_long_chain_costs_little() -> None:
    """Only so many hops are looked at."""
    assert MOST_HOPS <= 50
