"""The event stream: nobody who follows it misses anything without being told, and nobody waits for another."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from sqlalchemy import delete
from sqlmodel import col

from proactive_prefect.gateway import push, stream
from proactive_prefect.ledger.db import Ledger, open_ledger
from proactive_prefect.ledger.log import append
from proactive_prefect.ledger.tables import Event
from proactive_prefect.settings import Settings
from tests.gateway.serving import READ, TOKEN, Known, serving
from tests.ledger.histories import NOON, an_event
from tests.ledger.writers import start_writer
from tests.support import wait_until

STREAM, EVENTS = "/api/v1/ops/scheduling/stream", "/api/v1/ops/scheduling/events"
OPERATOR = {"Authorization": f"Bearer {TOKEN}"}


@pytest.fixture
async def known(tmp_path: Any) -> AsyncIterator[Known]:
    """A gateway's parts over an empty ledger."""
    settings = Settings(home=tmp_path, token=TOKEN, read_token=READ)
    async with open_ledger(settings) as ledger:
        yield Known(settings, ledger)


@pytest.fixture
async def url(known: Known) -> AsyncIterator[str]:
    """Where that gateway's stream is served."""
    async with serving(known, stream.router) as base:
        yield base


@pytest.fixture
async def http(url: str) -> AsyncIterator[httpx.AsyncClient]:
    """A client of it that has the operator's token, and patience."""
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(base_url=url, headers=OPERATOR, timeout=60, limits=limits) as client:
        yield client


@dataclass
class Heard:
    """One message of a stream."""

    event: str = "message"
    id: str | None = None
    data: dict[str, Any] = field(default_factory=dict)


async def listen(http: httpx.AsyncClient, **params: Any) -> AsyncIterator[Heard]:
    """The messages of a stream, as they come."""
    headers = params.pop("headers", {})
    async with http.stream("GET", STREAM, params=params, headers=headers) as answer:
        assert answer.status_code == 200, await answer.aread()
        assert answer.headers["content-type"].startswith("text/event-stream")
        heard = Heard()
        async for line in answer.aiter_lines():
            name, _, value = line.partition(": ")
            match name:
                case "event":
                    heard.event = value
                case "id":
                    heard.id = value
                case "data":
                    heard.data = json.loads(value)
                case "":
                    yield heard
                    heard = Heard()


async def told(http: httpx.AsyncClient, count: int, **params: Any) -> list[int]:
    """The `seq` of the first `count` events of a stream."""
    found: list[int] = []
    stream = listen(http, **params)
    async for heard in stream:
        if heard.event == "message":
            found.append(heard.data["event"]["seq"])
            assert heard.id == str(found[-1])
        if len(found) >= count:
            break
    await stream.aclose()  # type: ignore[attr-defined]
    return found


async def write(ledger: Ledger, first: int, count: int, **payload: Any) -> None:
    """Log some events, in one transaction; each happened before the one ahead of it in the log."""
    events = [an_event(f"e{n}", at=NOON - timedelta(minutes=n)) for n in range(first, first + count)]
    for event in events:
        event.payload.update(payload)
    async with ledger.write() as session:
        await append(session, events)


async def test_what_there_is_comes_in_the_order_of_the_log_with_where_the_calendar_is(
    http: httpx.AsyncClient, known: Known
) -> None:
    """With `once` the stream ends after it; events that happened in another order are told in the log's."""
    await write(known.ledger, 1, 3)
    heard = [one async for one in listen(http, since_seq=1, once=1)]
    assert [one.event for one in heard] == ["message", "message", "keepalive"]
    assert [one.data["event"]["seq"] for one in heard[:2]] == [2, 3]
    first = heard[0].data
    assert first["event"].keys() == {
        "seq",
        "event_type",
        "source",
        "source_ref",
        "owner_id",
        "session_id",
        "channel",
        "occurred_at_utc",
        "status",
        "payload",
    }
    assert first["event"]["occurred_at_utc"] == "2026-03-01T11:58:00Z"
    for one in heard:
        assert isinstance(one.data["projection_version"], int)
        assert isinstance(one.data["projection_last_event_seq"], int)
    assert (heard[2].data["seq"], heard[2].id) == (3, None)


async def test_a_new_event_reaches_who_listens(http: httpx.AsyncClient, known: Known) -> None:
    """Without `since_seq` the stream begins now; the first words come at once, so that the client knows it is live."""
    await write(known.ledger, 1, 5)
    stream = listen(http)
    first = await asyncio.wait_for(anext(stream), 10)
    assert (first.event, first.data["seq"]) == ("keepalive", 5)
    began = time.monotonic()
    await write(known.ledger, 6, 1)
    heard = await asyncio.wait_for(anext(stream), 10)
    assert heard.data["event"]["seq"] == 6
    assert time.monotonic() - began < 5
    await stream.aclose()  # type: ignore[attr-defined]


async def test_who_comes_back_misses_nothing(http: httpx.AsyncClient, known: Known) -> None:
    """Cut off again and again while two processes write, a reader that says what it knows hears each event once."""
    writers = [start_writer(known.settings, name, 60) for name in ("a", "b")]
    found: list[int] = []
    total = 2 * 60 + 61  # what is its own of each, and what they share
    while len(found) < total:
        headers = {"Last-Event-ID": str(found[-1])} if found else {}
        found += await asyncio.wait_for(told(http, min(17, total - len(found)), since_seq=0, headers=headers), 60)
    assert found == list(range(1, total + 1))
    for process, _ in writers:
        process.join(20)


async def test_two_hundred_readers_at_once_all_hear_all(http: httpx.AsyncClient, known: Known) -> None:
    """One look at the log serves them all; each hears every event, in order, and all are gone afterwards."""
    await write(known.ledger, 1, 1)
    readers = [asyncio.create_task(told(http, 50, since_seq=1)) for _ in range(200)]
    await wait_until(lambda: known.push.readers == 200, what="200 readers follow")
    for batch in range(7):
        await write(known.ledger, 2 + batch * 7, 7)
    await write(known.ledger, 51, 1)
    found = await asyncio.wait_for(asyncio.gather(*readers), 60)
    assert all(one == list(range(2, 52)) for one in found)
    await wait_until(lambda: known.push.readers == 0, what="no reader is left")
    assert known.push.counts["push_stream_event_payloads"] == 200 * 50
    assert known.push.counts["push_stream_connects"] == known.push.counts["push_stream_disconnects"] == 200


async def test_a_slow_reader_is_told_to_look_anew_and_holds_up_nobody(
    http: httpx.AsyncClient, url: str, known: Known, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that takes nothing while 10 MB come: the other hears all at once, and it, later, that it has missed some."""
    monkeypatch.setattr(push, "WAITING", 20)
    to = urlsplit(url)
    slow = socket.create_connection((to.hostname, to.port))
    slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
    slow.sendall(f"GET {STREAM}?token={READ} HTTP/1.1\r\nHost: test\r\n\r\n".encode())
    quick = asyncio.create_task(told(http, 100))
    await wait_until(lambda: known.push.readers == 2, what="both follow")
    for n in range(10):
        await write(known.ledger, n * 10, 10, text="x" * 100_000)
        await wait_until(lambda n=n: known.push.seq == (n + 1) * 10, what="they are given")  # type: ignore[misc]
        await asyncio.sleep(0)  # the other one's turn
    assert await asyncio.wait_for(quick, 60) == list(range(1, 101))
    slow.settimeout(20)
    text = ""
    while "event: resync" not in text:
        text = text[-20:] + (await asyncio.to_thread(slow.recv, 1 << 20)).decode()
    assert known.push.counts["push_stream_resyncs"] == 1
    await write(known.ledger, 900, 1, text="after")
    while '"text":"after"' not in text:
        text = text[-20:] + (await asyncio.to_thread(slow.recv, 1 << 20)).decode()
    slow.close()
    await wait_until(lambda: known.push.readers == 0, what="no reader is left")


async def test_who_takes_nothing_at_all_is_hung_up_on(
    url: str, known: Known, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A client that went away without a word does not stay for ever, and it is no error."""
    monkeypatch.setattr(stream, "STUCK_SECONDS", 0.5)
    to = urlsplit(url)
    stuck = socket.create_connection((to.hostname, to.port))
    stuck.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    stuck.sendall(f"GET {STREAM}?token={READ} HTTP/1.1\r\nHost: test\r\n\r\n".encode())
    await wait_until(lambda: known.push.readers == 1, what="it follows")
    for n in range(20):
        await write(known.ledger, n * 10, 10, text="x" * 100_000)
    await wait_until(lambda: known.push.readers == 0, what="it is hung up on", timeout=20)
    stuck.close()
    assert "Traceback" not in caplog.text


async def test_events_that_are_gone_are_said_to_be(http: httpx.AsyncClient, known: Known) -> None:
    """Who knows less than the log keeps, or more than it has, is told to look anew, and where to go on."""
    await write(known.ledger, 1, 10)
    async with known.ledger.write() as session:
        await session.execute(delete(Event).where(col(Event.seq) <= 5))
    for since in (1, 3, 11, 2**63 - 1):
        heard = [one async for one in listen(http, since_seq=since, once=1)]
        assert [(one.event, one.data["seq"]) for one in heard] == [("resync", 10), ("keepalive", 10)]
        assert heard[0].id == "10"
        assert (await http.get(EVENTS, params={"since_seq": since})).json()["resync"] is True
    assert await told(http, 5, since_seq=0) == [6, 7, 8, 9, 10]
    assert await told(http, 5, since_seq=5) == [6, 7, 8, 9, 10]


async def test_the_log_is_read_in_pages(http: httpx.AsyncClient, known: Known) -> None:
    """`limit` events after `since_seq`, of one rule if asked, with how far the log goes."""
    await write(known.ledger, 1, 5)
    async with known.ledger.write() as session:
        await append(session, [an_event("other", rule_id="other")])
    page = (await http.get(EVENTS, params={"since_seq": 1, "limit": 2})).json()
    assert [event["seq"] for event in page["events"]] == [2, 3]
    assert (page["seq"], page["oldest_seq"], page["resync"]) == (6, 1, False)
    assert page.keys() >= {"projection_version", "projection_last_event_seq"}
    of_one = (await http.get(EVENTS, params={"rule": "other"})).json()
    assert [event["source_ref"] for event in of_one["events"]] == ["other"]
    for wrong in ({"since_seq": -1}, {"since_seq": 2**63}, {"limit": 0}, {"limit": 1001}, {"since_seq": "x"}):
        assert (await http.get(EVENTS, params=wrong)).status_code == 422


async def test_what_a_client_was_told_last_goes_before_where_it_began(http: httpx.AsyncClient, known: Known) -> None:
    """A browser that comes back asks the same address and adds Last-Event-ID; nonsense in it is not heard."""
    await write(known.ledger, 1, 4)
    for said, first in (("3", 4), ("x", 2), ("", 2), ("-1", 2)):
        assert (await told(http, 1, since_seq=1, headers={"Last-Event-ID": said}))[0] == first


async def test_a_silent_stream_shows_that_it_lives(http: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """By keepalives that say how far the log is."""
    monkeypatch.setattr(stream, "KEEPALIVE_SECONDS", 0.1)
    heard = listen(http)
    kinds = [(await asyncio.wait_for(anext(heard), 10)).event for _ in range(3)]
    assert kinds == ["keepalive"] * 3
    await heard.aclose()  # type: ignore[attr-defined]


async def test_the_switch_closes_both(http: httpx.AsyncClient, known: Known) -> None:
    """Switched off they answer 503, as a problem; who may not read is told so first."""
    known.settings = known.settings.model_copy(update={"push_enabled": False})
    for path in (STREAM, EVENTS):
        answer = await http.get(path)
        assert (answer.status_code, answer.headers["content-type"]) == (503, "application/problem+json")
        assert "PROACTIVE_PUSH_ENABLED" in answer.json()["detail"]
        assert (await http.get(path, headers={"Authorization": ""})).status_code == 401


async def test_readers_without_end_are_refused(http: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """A limit keeps them from taking the gateway down."""
    monkeypatch.setattr(stream, "MAX_READERS", 0)
    answer = await http.get(STREAM)
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "30")


async def test_a_gateway_that_stops_lets_its_readers_go(known: Known) -> None:
    """Within the time that a stop may take, although they would listen for ever."""
    async with httpx.AsyncClient(headers=OPERATOR, timeout=30) as client:
        async with serving(known, stream.router) as base:
            client.base_url = httpx.URL(base)
            heard = listen(client)
            await asyncio.wait_for(anext(heard), 10)
            began = time.monotonic()
        assert time.monotonic() - began < 5
        with pytest.raises(httpx.RemoteProtocolError):
            assert [one.event async for one in heard] == []
