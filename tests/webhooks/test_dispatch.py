"""What becomes of deliveries when Prefect, or their webhook, is not there."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from sqlalchemy import select
from sqlmodel import col

from proactive_prefect.ledger.db import Ledger
from proactive_prefect.ledger.deliveries import Settled, settle
from proactive_prefect.ledger.log import read_events
from proactive_prefect.ledger.tables import Delivery
from proactive_prefect.prefect_api import connect
from proactive_prefect.prefect_api.address import use_api_url
from proactive_prefect.rules.models import WebhookRule
from proactive_prefect.settings import Settings
from proactive_prefect.webhooks.dispatch import Dispatcher
from proactive_prefect.webhooks.inbox import Inbox
from tests.support import free_port, wait_until

from .calls import a_call, anybodys

RULE = WebhookRule.model_validate({"id": "hook", "action": {"type": "python", "call": "a:b"}, "on_overlap": "allow"})


@dataclass(frozen=True)
class Deployed:
    """A webhook that runs whatever comes."""

    rule: WebhookRule = RULE
    deployment_id: str = "0c0ffee0-0000-4000-8000-000000000000"
    paused: bool = False


class Known:
    """The webhooks that are deployed: one, or none."""

    def __init__(self, *known: Deployed, ready: bool = True) -> None:
        self.ready = ready
        self._known = {one.rule.id: one for one in known}

    def get(self, rule_id: str) -> Deployed | None:
        return self._known.get(rule_id)


@contextlib.asynccontextmanager
async def dispatching(inbox: Inbox, known: Known, keep: timedelta = timedelta(days=1)) -> AsyncIterator[Dispatcher]:
    """A dispatcher at work, whose Prefect does not answer."""
    stop = asyncio.Event()
    with use_api_url(f"http://127.0.0.1:{free_port()}/api"):
        async with connect(Settings().model_copy(update={"api_patience": 0.0})) as api:
            dispatcher = Dispatcher(api, inbox, known, keep)
            work = asyncio.create_task(dispatcher.work(stop))
            try:
                yield dispatcher
                assert not work.done()
            finally:
                stop.set()
                await asyncio.wait_for(work, 30)


async def rows(ledger: Ledger) -> dict[str, Delivery]:
    async with ledger.read() as session:
        found = (await session.scalars(select(Delivery).order_by(col(Delivery.id)))).all()
    return {one.delivery_id: one for one in found}


async def test_while_prefect_is_away_deliveries_wait(ledger: Ledger) -> None:
    """They are tried again, ever more rarely, and nobody's when the gateway stops: another one need not wait."""
    inbox = Inbox(ledger)
    async with dispatching(inbox, Known(Deployed())) as dispatcher:
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


async def test_a_delivery_whose_webhook_was_deleted_is_recorded(ledger: Ledger) -> None:
    """Not lost without a word: it stands in the inbox and in the event log; whoever repeats it is told."""
    inbox = Inbox(ledger)
    long_ago = datetime.now(UTC) - timedelta(hours=1)
    first = (await inbox.accept(anybodys("old", received_at=long_ago))).delivery
    async with dispatching(inbox, Known()):
        told = await inbox.settled(first.id, 30)
        assert told is not None
        assert (told.status, told.run_id) == ("undeliverable", None)
        assert "not deployed" in told.reason
        await inbox.accept(anybodys("new"))  # its webhook may have been deployed a moment ago

        async def put_off() -> bool:
            return (await rows(ledger))["new"].attempts >= 2

        await wait_until(put_off, what="the new one was tried again")
    assert {name: one.status for name, one in (await rows(ledger)).items()} == {
        "old": "undeliverable",
        "new": "waiting",
    }
    async with ledger.read() as session:
        (event,) = await read_events(session)
    assert (event.event_type, event.source_ref, event.status) == ("webhook_undeliverable", "hook", "failed")
    repeat = await inbox.accept(a_call("old"))
    assert (repeat.repeated, repeat.delivery.status) == (True, "undeliverable")


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
