"""Callers that are slow, many or large cost the gateway a bounded time and a bounded memory."""

from __future__ import annotations

import contextlib
import time

import httpx
import pytest

from tests.gateway.conftest import Gateway
from tests.support import wait_until_sync

from .conftest import Line, statuses

HEAD = b"POST /hooks/x HTTP/1.1\r\nHost: x\r\n"
SOON = 15.0  # seconds: the gateway of these tests gives up after one


def drip(line: Line, raw: bytes) -> float:
    """Send a byte now and then for as long as the connection lasts; the seconds that it lasted."""
    began, count = time.monotonic(), 0
    while not line.is_over():
        assert time.monotonic() - began < SOON, "the connection is still open"
        line.send(raw[count % len(raw) :][:1])
        count += 1
        time.sleep(0.05)  # the pace of a slow caller
    return time.monotonic() - began


@pytest.mark.parametrize("begin", [b"", b"POST /hooks/x HTTP/1.1\r\n", HEAD + b"X-A: "])
def test_a_head_that_does_not_come_is_not_waited_for(begin: bytes, alone: Gateway) -> None:
    """Silent from the start, or silent in the middle: 408, and the connection is gone."""
    with Line(alone) as line:
        line.send(begin)
        assert statuses(line.read_to_end()) == [408]


def test_bytes_that_drip_do_not_stop_the_clock(alone: Gateway) -> None:
    """A head that grows byte by byte for ever is cut off after the same time."""
    with Line(alone) as line:
        line.send(HEAD)
        assert drip(line, b"X-A: b\r\n") < SOON


def test_a_second_request_that_drips_is_cut_off_as_the_first_would_be(alone: Gateway) -> None:
    """A connection that was of use once is not kept for a head that never ends."""
    with Line(alone) as line:
        line.send(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\nGET /healthz HTTP/1.1\r\n")
        assert drip(line, b"X-A: b\r\n") < SOON


def test_a_body_that_drips_is_cut_off(alone: Gateway) -> None:
    """With a length or in chunks: 408 after the same time, on every route that takes a body."""
    for path in (b"/hooks/x", b"/login"):
        for framing, chunk in ((b"Content-Length: 5000", b"x"), (b"Transfer-Encoding: chunked", b"1\r\nx\r\n")):
            with Line(alone) as line:
                line.send(b"POST " + path + b" HTTP/1.1\r\nHost: x\r\n" + framing + b"\r\n\r\n" + chunk)
                assert statuses(line.read_to_end())[0] == 408


def test_the_rest_of_a_body_that_was_answered_already_is_not_waited_for(alone: Gateway) -> None:
    """Who is told 413 at once and goes on sending is cut off."""
    with Line(alone) as line:
        line.send(HEAD + b"Content-Length: 99999999\r\n\r\n")
        assert drip(line, b"x") < SOON
    with Line(alone) as line:
        line.send(b"POST /nowhere HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999\r\n\r\n")
        assert drip(line, b"x") < SOON


@pytest.mark.parametrize("path", ["/hooks/x", "/login"])
def test_a_body_without_end_is_cut_off_where_it_is_too_large(path: str, alone: Gateway) -> None:
    """Chunks that never end are not collected beyond the limit, whatever the route."""
    with Line(alone) as line:
        line.send(f"POST {path} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n".encode())
        for _ in range(30):
            line.send(b"1000\r\n" + b"x" * 0x1000 + b"\r\n")
        assert statuses(line.read_to_end()) == [413]


@pytest.mark.parametrize(
    ("head", "expected"),
    [
        (b"X-A: " + b"a" * 20_000 + b"\r\n", 401),
        (b"X-A: " + b"a" * 33_000 + b"\r\n", 431),
        (b"X-A: " + b"a" * 200_000 + b"\r\n", 431),
        (b"X-A: a\r\n" * 90, 401),
        (b"X-A: a\r\n" * 101, 431),
        (b"a:\r\n" * 10_000, 431),
    ],
)
def test_headers_have_a_size_and_a_number(head: bytes, expected: int, alone: Gateway) -> None:
    """Too large or too many: 431 (or 400, where they are too large to be read at all)."""
    with Line(alone) as line:
        line.send(HEAD + head + b"Connection: close\r\n\r\n")
        [status] = statuses(line.read_to_end())
    assert status == expected or (expected == 431 and status == 400)


def test_an_address_has_a_length(alone: Gateway) -> None:
    """A path or a query of 8 KiB is enough."""
    assert httpx.post(f"{alone.url}/hooks/{'x' * 9000}").status_code == 414
    assert httpx.get(f"{alone.url}/healthz?{'x' * 9000}").status_code == 414
    assert httpx.get(f"{alone.url}/healthz?{'x' * 7000}").status_code == 200


def test_one_address_does_not_get_all_connections(alone: Gateway) -> None:
    """Of 30 connections from one address 20 are served; another address is, too; when they end, all is as before."""
    with contextlib.ExitStack() as stack:
        lines = [stack.enter_context(Line(alone)) for _ in range(30)]
        heard = []
        for line in lines:
            line.send(b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        for line in lines:
            heard += statuses(line.read_to_end()) or [429]  # the answer may be lost in a reset
        # One or two more where some had ended before the last were there.
        assert heard.count(200) >= 20
        assert heard.count(200) + heard.count(429) == 30
    with contextlib.ExitStack() as stack:
        held = [stack.enter_context(Line(alone)) for _ in range(20)]
        for line in held:
            line.send(HEAD)
        with Line(alone) as line:
            assert statuses(line.read_to_end()) in ([429], [])
        with Line(alone, "127.0.0.9") as other:
            other.send(b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            assert statuses(other.read_to_end()) == [200]
    wait_until_sync(alone.is_alive, what="the address has connections again")


def test_all_connections_together_are_bounded_and_slow_ones_make_room(alone: Gateway) -> None:
    """Beyond the limit for all: 503; the slow ones are gone after their time, and the gateway answers again."""
    with contextlib.ExitStack() as stack:
        for number in range(40):
            stack.enter_context(Line(alone, f"127.0.1.{1 + number % 3}")).send(HEAD)
        with Line(alone, "127.0.2.1") as line:
            assert statuses(line.read_to_end()) in ([503], [])
        wait_until_sync(alone.is_alive, what="the slow connections made room", timeout=SOON)


def test_what_a_caller_does_not_read_does_not_pile_up(alone: Gateway) -> None:
    """A thousand requests at once on one connection, whose answers nobody reads, stop being read; others go on."""
    with Line(alone) as line:
        line.socket.settimeout(1)
        with contextlib.suppress(TimeoutError):
            for _ in range(1000):
                line.socket.sendall(b"GET /page/page.js HTTP/1.1\r\nHost: x\r\n\r\n" * 10)
        assert alone.is_alive()
