"""Requests that two readers could take apart in two ways: nothing that hides in one of them is ever answered."""

from __future__ import annotations

import pytest

from tests.gateway.conftest import Gateway

from .conftest import Line, statuses

# Answered with 200, were it taken for a request of its own.
HIDDEN = b"GET /healthz HTTP/1.1\r\nHost: x\r\nX-Ignore: "
POST = b"POST /hooks/x HTTP/1.1\r\nHost: x\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n"


def length(value: bytes) -> bytes:
    """A Content-Length line."""
    return b"Content-Length: " + value + b"\r\n"


ALL = length(b"%d" % len(b"0\r\n\r\n" + HIDDEN))

REFUSED = {
    "CL.TE": POST + ALL + CHUNKED + b"\r\n0\r\n\r\n" + HIDDEN,
    "TE.CL": POST + CHUNKED + length(b"4") + b"\r\n5c\r\n" + HIDDEN + b"\r\n0\r\n\r\n",
    "TE twice": POST + CHUNKED + b"Transfer-Encoding: identity\r\n\r\n0\r\n\r\n" + HIDDEN,
    "TE twice, chunked both": POST + CHUNKED + CHUNKED + b"\r\n0\r\n\r\n" + HIDDEN,
    "TE of two": POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n" + HIDDEN,
    "TE in disguise": POST + ALL + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n" + HIDDEN,
    "TE with a tab": POST + ALL + b"Transfer-Encoding:\tchunked\r\n\r\n0\r\n\r\n" + HIDDEN,
    "TE with a vertical tab": POST + ALL + b"Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n" + HIDDEN,
    "TE with a space before the colon": POST + ALL + b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n" + HIDDEN,
    "TE folded": POST + ALL + b"Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n" + HIDDEN,
    "TE in HTTP/1.0": POST.replace(b"1.1", b"1.0") + CHUNKED + b"\r\n0\r\n\r\n" + HIDDEN,
    "TE behind a bare LF": POST + ALL + b"X: y\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + HIDDEN,
    "TE behind a bare CR": POST + ALL + b"X: y\rTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + HIDDEN,
    "TE behind a NUL": POST + ALL + b"X: y\0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + HIDDEN,
    "two lengths": POST + length(b"0") + ALL + b"\r\n0\r\n\r\n" + HIDDEN,
    "two lengths in one": POST + length(b"0, 60") + b"\r\n" + HIDDEN,
    "a length with a sign": POST + length(b"+0") + b"\r\n" + HIDDEN,
    "a length below zero": POST + length(b"-1") + b"\r\n" + HIDDEN,
    "a length in hexadecimal": POST + length(b"0x0") + b"\r\n" + HIDDEN,
    "a length with an underscore": POST + length(b"0_0") + b"\r\n" + HIDDEN,
    "a length in other digits": POST + length("٠".encode()) + b"\r\n" + HIDDEN,
    "a length with a space in it": POST + length(b"0 0") + b"\r\n" + HIDDEN,
    "a length of nothing": POST + length(b"") + b"\r\n" + HIDDEN,
    "a chunk's size with a sign": POST + CHUNKED + b"\r\n+0\r\n\r\n" + HIDDEN,
    "a chunk's size in 0x": POST + CHUNKED + b"\r\n0x0\r\n\r\n" + HIDDEN,
    "a chunk's size without end": POST + CHUNKED + b"\r\n" + b"0" * 100 + b"\r\n\r\n" + HIDDEN,
    "a chunk longer than it says": POST + CHUNKED + b"\r\n1\r\nxxx0\r\n\r\n" + HIDDEN,
    "a header before the first": b"POST /hooks/x HTTP/1.1\r\n X: y\r\nHost: x\r\n\r\n" + HIDDEN,
    "a name with a space": POST + b"X y: z\r\n\r\n" + HIDDEN,
    "a header without a colon": POST + b"Xyz\r\n\r\n" + HIDDEN,
    "two content types": POST + b"Content-Type: text/plain\r\nContent-Type: application/json\r\n\r\n" + HIDDEN,
    "two authorizations": POST + b"Authorization: Bearer a\r\nAuthorization: Bearer b\r\n\r\n" + HIDDEN,
    "two hosts": POST + b"Host: y\r\n" + length(b"0") + b"\r\n" + HIDDEN,
    "no host": b"POST /hooks/x HTTP/1.1\r\n" + length(b"0") + b"\r\n" + HIDDEN,
    "another protocol": b"POST /hooks/x HTTP/2.0\r\nHost: x\r\n\r\n" + HIDDEN,
    "the preface of HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + HIDDEN,
    "a target with a space": b"POST /hooks/x y HTTP/1.1\r\nHost: x\r\n\r\n" + HIDDEN,
    "a target with an end of line": b"POST /hooks/x\n HTTP/1.1\r\nHost: x\r\n\r\n" + HIDDEN,
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + HIDDEN,
    "a PROXY line": b"PROXY TCP4 1.1.1.1 2.2.2.2 1 2\r\n" + POST + b"\r\n" + HIDDEN,
}


@pytest.mark.parametrize("raw", REFUSED.values(), ids=REFUSED.keys())
def test_what_can_be_read_in_two_ways_is_refused_and_nothing_behind_it_answered(raw: bytes, alone: Gateway) -> None:
    """One refusal at most, then the connection ends: a request that hides behind is never one."""
    with Line(alone) as line:
        line.send(raw + b"y\r\n\r\n")
        heard = line.read_to_end()
    assert 200 not in statuses(heard), heard
    assert len(statuses(heard)) <= 1, heard
    assert not {status for status in statuses(heard) if status >= 500 and status != 505}, heard


def test_the_same_length_twice_is_that_length(alone: Gateway) -> None:
    """As RFC 9110 allows: what stands in the body is never a request."""
    with Line(alone) as line:
        line.send(POST + ALL + ALL + b"\r\n0\r\n\r\n" + HIDDEN + b"y\r\n\r\n")
        assert statuses(line.read_to_end()) == [401, 400]


def test_an_upgrade_is_not_taken(alone: Gateway) -> None:
    """Neither to a web socket nor to HTTP/2: nothing but HTTP/1.1 is spoken here."""
    for protocol in (b"websocket", b"h2c"):
        with Line(alone) as line:
            line.send(
                b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: Upgrade, close\r\nUpgrade: " + protocol
                + b"\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: eHh4eHh4eHh4eHh4eHh4eA==\r\n\r\n"
            )  # fmt: skip
            assert statuses(line.read_to_end()) == [200]


def test_the_name_of_the_host_is_not_believed(alone: Gateway) -> None:
    """No answer has the Host header of the call in it, nor leads there."""
    for path in (b"/hooks/x", b"/hooks/x/", b"/page", b"/", b"//evil.example", b"/login", b"/docs", b"/nowhere"):
        for method in (b"GET", b"POST"):
            with Line(alone) as line:
                line.send(
                    method + b" " + path + b" HTTP/1.1\r\nHost: evil.example\r\nX-Forwarded-Host: evil.example\r\n"
                    b"Connection: close\r\nContent-Length: 0\r\n\r\n"
                )
                assert b"evil.example" not in line.read_to_end()


@pytest.mark.parametrize(
    "path",
    [
        "/hooks/../healthz", "/hooks/%2e%2e/healthz", "/hooks/..%2fhealthz", "/hooks/%2e%2e%2f%2e%2e%2fetc%2fpasswd",
        "/hooks//plain", "//hooks/plain", "/hooks/plain/", "/hooks/plain%2f", "/hooks/plain%00", "/hooks/plain;x",
        "/hooks/plain%0d%0aX:%20y", "/hooks/%ff%fe", "/hooks/%", "/hooks/%zz", "/hooks/..\\..\\x", "/HOOKS/plain",
        "/page/../../proactive.toml", "/page/%2e%2e/%2e%2e/app.py", "/page/..%2f..%2fapp.py", "/page//etc/passwd",
        "/page/%2fetc%2fpasswd", "/docs/files/..%2f__init__.py", "/docs/files/%2e%2e/core.py", "/page/\\..\\app.py",
    ],
)  # fmt: skip
def test_a_path_leads_nowhere_but_where_it_says(path: str, alone: Gateway) -> None:
    """Dots, slashes, zeros and ends of lines in a path: refused, and nothing of the inside comes back."""
    for method in ("GET", "POST"):
        with Line(alone) as line:
            head = f"{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
            line.send(head.encode("latin-1"))
            heard = line.read_to_end()
        assert statuses(heard)[0] in (400, 401, 404, 405), heard
        for inside in (b"root:", b"import ", b"Traceback", b"[proactive]"):
            assert inside not in heard
