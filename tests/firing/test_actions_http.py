"""The action `http`: one request to a real server on this machine."""

from __future__ import annotations

import asyncio
import gzip
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from proactive_prefect.errors import ActionError
from proactive_prefect.firing.results import HeartbeatResult

from ..support import free_port
from .acting import run


@pytest.fixture(autouse=True)
def _allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The operator allows calls to this machine."""
    monkeypatch.setenv("PROACTIVE_OUTBOUND_ALLOW", "127.0.0.0/8")


@dataclass
class Site:
    """A web server: what each path answers (status, headers, body), and the requests that came."""

    url: str = ""
    answers: dict[str, tuple[int, dict[str, str], bytes]] = field(default_factory=dict)
    requests: list[dict[str, Any]] = field(default_factory=list)
    asked: threading.Event = field(default_factory=threading.Event)
    closing: threading.Event = field(default_factory=threading.Event)

    def says(self, path: str, status: int = 200, body: bytes = b"", **headers: str) -> str:
        """Answer `path` so, and give its URL."""
        self.answers[path] = (status, {name.replace("_", "-"): value for name, value in headers.items()}, body)
        return self.url + path


@pytest.fixture
def site() -> Iterator[Site]:
    """A web server on a free port; it answers /hang with nothing."""
    site = Site()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self) -> None:
            length = int(self.headers.get("content-length", 0))
            request = {
                "method": self.command,
                "path": self.path,
                "headers": {k.lower(): v for k, v in self.headers.items()},
            }
            site.requests.append(request | {"body": self.rfile.read(length).decode()})
            site.asked.set()
            if self.path == "/hang":
                site.closing.wait(60)
                return
            status, headers, body = site.answers[self.path]
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = answer

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the name of the base class
            return

        def handle(self) -> None:
            try:
                super().handle()
            except ConnectionError:
                return

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        site.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield site
        finally:
            site.closing.set()
            server.shutdown()
            thread.join()


def http(url: str, **keys: Any) -> dict[str, Any]:
    return {"type": "http", "url": url, **keys}


async def test_the_text_of_an_answer_is_the_message(site: Site) -> None:
    """A 2xx with a text notifies with it; status and type are kept."""
    url = site.says("/status", 201, "gut, schön".encode(), Content_Type="text/plain; charset=utf-8")
    assert await run(http(url)) == HeartbeatResult(
        True, "gut, schön", {"status": 201, "content_type": "text/plain; charset=utf-8"}
    )


@pytest.mark.parametrize(
    ("method", "status", "body"), [("GET", 204, b""), ("GET", 200, b" \n"), ("HEAD", 200, b"text")]
)
async def test_an_answer_without_a_body_is_quiet(site: Site, method: str, status: int, body: bytes) -> None:
    """2xx with nothing in it is nothing to say."""
    result = await run(http(site.says("/", status, body), method=method))
    assert not result.should_notify
    assert result.metadata["status"] == status


async def test_headers_and_json_are_sent_with_references_filled_in(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """URL, headers and JSON body may name secrets; the method is the rule's."""
    monkeypatch.setenv("TOKEN", "canary-token")
    monkeypatch.setenv("SITE", site.says("/canary-token"))
    action = http(
        "${env:SITE}", method="PATCH", headers={"Authorization": "Bearer ${env:TOKEN}"}, json={"a": ["${env:TOKEN}", 1]}
    )
    await run(action)
    [request] = site.requests
    assert request["method"] == "PATCH"
    assert request["path"] == "/canary-token"
    assert request["headers"]["authorization"] == "Bearer canary-token"
    assert request["headers"]["content-type"] == "application/json"
    assert json.loads(request["body"]) == {"a": ["canary-token", 1]}


@pytest.mark.parametrize("status", [400, 401, 404, 429, 500, 503])
async def test_an_error_status_fails_with_the_beginning_of_what_was_said(site: Site, status: int) -> None:
    """4xx and 5xx fail, with status and a bounded piece of the body, in one line."""
    url = site.says("/broken", status, b"no\nsuch " + b"x" * 10_000)
    with pytest.raises(ActionError) as error:
        await run(http(url))
    assert error.value.message.startswith(f"GET {url} answered {status} ")
    assert ": no such xxx" in error.value.message
    assert len(error.value.message) < 700
    assert "\n" not in error.value.message


async def test_a_redirect_is_not_followed(site: Site) -> None:
    """A redirect would take the headers, and secrets in them, elsewhere: it fails, and says where it points."""
    url = site.says("/old", 302, Location=site.says("/new"))
    with pytest.raises(ActionError, match=r"answered 302, a redirect to http://127.0.0.1:\d+/new") as error:
        await run(http(url, headers={"Authorization": "secret"}))
    assert "name the final address" in error.value.hint
    assert [request["path"] for request in site.requests] == ["/old"]


async def test_secrets_do_not_come_back_in_errors_or_messages(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that repeats the secret it was sent, in body, location or reason, is told without it."""
    monkeypatch.setenv("TOKEN", "canary/token?")
    echo = b'{"you sent": "canary/token?", "or": "canary%2Ftoken%3F"}'
    told = (await run(http(site.says("/echo", body=echo, Content_Type="application/json") + "#${env:TOKEN}"))).message
    assert told == '{"you sent": "***", "or": "***"}'
    for action in (
        http(site.says("/bad", 500, echo) + "#${env:TOKEN}"),
        http(site.says("/moved", 301, Location="/x?canary/token?") + "#${env:TOKEN}"),
        http(f"http://127.0.0.1:{free_port()}/${{env:TOKEN}}"),
        http("http://[bad/${env:TOKEN}"),
        http("${env:TOKEN}"),
        http(site.url, headers={"X": "${env:TOKEN}\r\nY: 1"}),
    ):
        with pytest.raises(ActionError) as error:
            await run(action)
        assert "canary" not in str(error.value)
        assert "canary" not in error.value.hint


async def test_a_long_answer_is_cut(site: Site) -> None:
    """At most the first 64 KiB of an answer are read, also of one that was packed small."""
    url = site.says("/long", body=gzip.compress(b"x" * 20_000_000), Content_Encoding="gzip", Content_Type="text/plain")
    message = (await run(http(url))).message or ""
    assert message == "x" * 65536 + "\n… (the first 64 KiB)"


@pytest.mark.parametrize(
    ("kind", "body", "message"),
    [
        ("image/png", b"\x89PNG", "4 bytes of image/png"),
        ("application/problem+json", b"{}", "{}"),
        ("text/plain; charset=latin-1", b"sch\xf6n", "schön"),
        ("text/plain; charset=zlib", b"text", "text"),
        ("text/plain; charset=nonsense", b"text\x00\xff", "text\ufffd\ufffd"),
    ],
)
async def test_an_answer_of_any_type_makes_a_message_that_can_be_kept(
    site: Site, kind: str, body: bytes, message: str
) -> None:
    """Text is decoded as the answer says, if that makes sense; what is no text is told by its size."""
    assert (await run(http(site.says("/", body=body, Content_Type=kind)))).message == message


async def test_a_request_that_nobody_answers_is_given_up_when_cancelled(site: Site) -> None:
    """A server that never answers holds an action no longer than its timeout, which cancels it."""
    task = asyncio.create_task(run(http(f"{site.url}/hang")))
    assert await asyncio.to_thread(site.asked.wait, 60)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        async with asyncio.timeout(5):
            await task


async def test_nobody_there_is_one_line() -> None:
    """A refused connection names the request and what happened."""
    port = free_port()
    with pytest.raises(ActionError, match=rf"POST http://127.0.0.1:{port}/: ConnectError: "):
        await run(http(f"http://127.0.0.1:{port}/", method="POST"))
