"""What becomes of deliveries when Prefect, or their webhook, is not there."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest

from proactive_prefect.ledger.db import Ledger
from proactive_prefect.ledger.deliveries import Settled, settle
from proactive_prefect.ledger.log import read_events
from proactive_prefect.webhooks.inbox import Inbox
from tests.conftest import Server
from tests.gateway.conftest import apply, forget
from tests.support import wait_until

from .calls import a_call, anybodys
from .dispatching import Deployed, Known, a_rule, dispatching, once, rows


@pytest.fixture
async def not_found() -> AsyncIterator[str]:
    """A proxy whose Prefect is not behind it for a moment: it answers everything with 404, in its own words."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(
            b"HTTP/1.1 404 Not Found\r\nContent-Type: text/plain\r\nContent-Length: 18\r\nConnection: close\r\n\r\n"
            b"404 page not found"
        )
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/api"
    server.close()


async def test_while_prefect_is_away_deliveries_wait(ledger: Ledger) -> None:
    """They are tried again, ever more rarely, and nobody's when the gateway stops: another one need not wait."""
    inbox = Inbox(ledger)
    async with dispatching(inbox, Known(Deployed(a_rule()))) as dispatcher:
        for number in range(3):
            await inbox.accept(a_call(str(number)))

        async def tried() -> bool:
            return all(one.attempts >= 2 for one in (await rows(ledger)).values())

        await wait_until(tried, what="each was tried again")
        assert dispatcher.pace.pause > 0
        assert int(dispatcher.pace.calls) == 1
    found = (await rows(ledger)).values()
    assert {(one.status, one.run_id) for one in found} == {("waiting", None)}
    assert not inbox.held
    assert {one.holder for one in (await rows(ledger)).values()} == {None}


async def test_a_delivery_whose_webhook_was_deleted_is_recorded(ledger: Ledger, prefect_server: Server) -> None:
    """Not lost without a word: it stands in the inbox and in the event log; whoever repeats it is told."""
    inbox = Inbox(ledger)
    first = (await inbox.accept(anybodys("old"))).delivery
    async with dispatching(inbox, Known(), url=prefect_server.api_url, gone_after=timedelta(0)):
        told = await inbox.settled(first.id, 30)
        assert told is not None
        assert (told.status, told.run_id) == ("undeliverable", None)
        assert "not deployed" in told.reason
    async with ledger.read() as session:
        (event,) = await read_events(session)
    assert (event.event_type, event.source_ref, event.status) == ("webhook_undeliverable", "hook", "failed")
    repeat = await inbox.accept(a_call("old"))
    assert (repeat.repeated, repeat.row["status"]) == (True, "undeliverable")


async def test_a_webhook_is_not_gone_that_was_unknown_for_a_moment(ledger: Ledger, prefect_server: Server) -> None:
    """However long ago the call came: somebody may be about to deploy the webhook again."""
    inbox = Inbox(ledger)
    await inbox.accept(anybodys("old", received_at=datetime.now(UTC) - timedelta(hours=1)))
    async with dispatching(inbox, Known(), url=prefect_server.api_url):
        found = await once(ledger, lambda found: found["old"].attempts >= 2, "it was tried again")
    assert found["old"].status == "waiting"


async def test_a_webhook_is_not_gone_that_prefect_has(ledger: Ledger, prefect_server: Server) -> None:
    """Another version deployed it, say, whose rules this one cannot read: its deliveries wait for who can."""
    inbox = Inbox(ledger)
    await apply("another-version", {"id": "hook"})
    try:
        await inbox.accept(anybodys("one"))
        async with dispatching(inbox, Known(), url=prefect_server.api_url, gone_after=timedelta(0)):
            await once(ledger, lambda found: found["one"].attempts and found["one"].holder is None, "it was looked at")
        assert (await rows(ledger))["one"].status == "waiting"
    finally:
        await forget("another-version")


async def test_a_webhook_is_not_gone_for_a_404_of_a_proxy(ledger: Ledger, not_found: str) -> None:
    """Neither one that is known nor one that is not: only Prefect itself says what it has."""
    inbox = Inbox(ledger)
    long_ago = datetime.now(UTC) - timedelta(hours=1)
    await inbox.accept(anybodys("known", received_at=long_ago))
    async with dispatching(inbox, Known(Deployed(a_rule())), url=not_found):
        found = await once(ledger, lambda found: found["known"].attempts >= 2, "it was tried again")
    assert found["known"].status == "waiting"
    await inbox.accept(anybodys("unknown", rule_id="other", received_at=long_ago))
    async with dispatching(inbox, Known(), url=not_found, gone_after=timedelta(0)):
        await once(ledger, lambda found: found["unknown"].attempts and found["unknown"].holder is None, "it was tried")
    assert (await rows(ledger))["unknown"].status == "waiting"


async def test_nothing_is_called_deleted_before_prefect_was_asked(ledger: Ledger) -> None:
    """A gateway that has just started, or whose Prefect is away, knows no webhook: its deliveries wait."""
    inbox = Inbox(ledger)
    await inbox.accept(anybodys("old", received_at=datetime.now(UTC) - timedelta(hours=1)))
    async with dispatching(inbox, Known(ready=False)):

        async def tried() -> bool:
            return (await rows(ledger))["old"].attempts >= 2

        await wait_until(tried, what="it was tried again")
    assert (await rows(ledger))["old"].status == "waiting"


async def test_settled_deliveries_are_forgotten_after_their_retention(ledger: Ledger) -> None:
    """What still waits is kept for as long as it takes."""
    inbox = Inbox(ledger)
    long_ago, now = datetime.now(UTC) - timedelta(days=3), datetime.now(UTC)
    later = now + timedelta(hours=1)
    for name, received, ended in (("old", long_ago, long_ago), ("slow", long_ago, now), ("new", now, now)):
        made = (await inbox.accept(anybodys(name, received_at=received, due_at=later))).delivery
        async with ledger.write() as session:
            await settle(session, [Settled(made.id, "dispatched", "run")], ended)
    await inbox.accept(anybodys("waits", received_at=long_ago, due_at=later))
    async with dispatching(inbox, Known()):

        async def forgotten() -> bool:
            return "old" not in await rows(ledger)

        await wait_until(forgotten, what="the oldest is forgotten")
    assert list(await rows(ledger)) == ["slow", "new", "waits"]
