"""The inbox: what was accepted is in the database, once, whatever ends when."""

from __future__ import annotations

import asyncio
import os
import signal
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import event, func, select
from sqlmodel import col

from proactive_prefect.ledger.db import Ledger, open_ledger
from proactive_prefect.ledger.deliveries import Settled, claim, put_off, read_delivery, settle
from proactive_prefect.ledger.delivery_log import last_deliveries
from proactive_prefect.ledger.tables import Delivery
from proactive_prefect.settings import Settings
from proactive_prefect.webhooks.inbox import LEASE, MAX_HELD, Inbox, InboxClosed

from .calls import a_call, anybodys, start_gateway
from .dispatching import queries


async def count(ledger: Ledger) -> int:
    async with ledger.read() as session:
        return (await session.scalars(select(func.count()).select_from(Delivery))).one()


async def take(ledger: Ledger, holder: str, limit: int = 100) -> list[str]:
    """Claim as a dispatcher does; the ids of the senders."""
    async with ledger.write() as session:
        now = await ledger.now(session)
        return [one.delivery_id for one in await claim(session, holder, now, now + LEASE, limit)]


async def test_what_was_accepted_is_read_back_as_it_came(ledger: Ledger) -> None:
    """An answer goes out after the commit: another reader sees the delivery, with payload and headers."""
    row = a_call("one", headers='{"x": "\\u0000"}', payload='"\\ud800 {{ 7*7 }}"')
    receipt = await Inbox(ledger).accept(row)
    assert not receipt.repeated
    async with ledger.read() as session:
        found = await read_delivery(session, receipt.delivery.id)
    assert found is not None
    assert (found.rule_id, found.delivery_id, found.status) == ("hook", "one", "waiting")
    assert (found.headers, found.payload) == (row["headers"], row["payload"])
    assert found.received_at == row["received_at"]


async def test_calls_that_come_together_share_commits(ledger: Ledger) -> None:
    """A thousand calls at once cost a few transactions, and each is there afterwards."""
    commits = 0

    @event.listens_for(ledger._writers.sync_engine, "commit")
    def committed(_: object) -> None:
        nonlocal commits
        commits += 1

    inbox = Inbox(ledger)
    receipts = await asyncio.gather(*(inbox.accept(a_call(str(number))) for number in range(1000)))
    assert len({receipt.delivery.id for receipt in receipts}) == 1000
    assert await count(ledger) == 1000
    assert commits <= 5


async def test_a_repeat_gets_the_delivery_that_came_first(ledger: Ledger) -> None:
    """Whether at once, later or at another gateway: one id of one webhook is one delivery."""
    here, there = Inbox(ledger), Inbox(ledger)
    calls = [inbox.accept(a_call("same")) for inbox in (here, there) for _ in range(10)]
    receipts = await asyncio.gather(*calls)
    assert [receipt.repeated for receipt in receipts].count(False) == 1
    assert len({receipt.delivery.id for receipt in receipts}) == 1
    other = await here.accept(a_call("same", rule_id="other"))
    assert not other.repeated
    assert await count(ledger) == 2


async def test_equal_calls_without_an_id_are_one_within_the_window(ledger: Ledger) -> None:
    """Only within it, only where the rule sets one, and at whichever gateway they come."""
    here, there = Inbox(ledger), Inbox(ledger)
    window = timedelta(minutes=1)
    now = datetime.now(UTC)

    async def call(inbox: Inbox, name: str, mark: str, seconds: float) -> bool:
        row = a_call(name, fingerprint=mark, received_at=now + timedelta(seconds=seconds))
        return (await inbox.accept(row, window)).repeated

    together = await asyncio.gather(
        *(call(inbox, f"{n}-{inbox.holder}", "a", 0) for n in range(5) for inbox in (here, there))
    )
    assert together.count(False) == 1
    assert await call(there, "b", "b", 1) is False
    assert await call(there, "a2", "a", 59) is True
    assert await call(here, "a3", "a", 61) is False
    assert await call(there, "a4", "a", 62) is True
    assert [(await here.accept(a_call(f"none-{n}"))).repeated for n in range(2)] == [False, False]


async def test_each_webhook_has_its_own_window(ledger: Ledger) -> None:
    """Also where equal calls of two of them are committed together."""
    inbox, now = Inbox(ledger), datetime.now(UTC)
    short, long = timedelta(seconds=1), timedelta(hours=1)
    for rule_id in ("short", "long"):
        before = now - timedelta(minutes=1)
        await inbox.accept(a_call("first", rule_id=rule_id, fingerprint="same", received_at=before), short)
    calls = [
        inbox.accept(a_call("second", rule_id=rule_id, fingerprint="same", received_at=now), window)
        for rule_id, window in (("short", short), ("long", long))
    ]
    assert [receipt.repeated for receipt in await asyncio.gather(*calls)] == [False, True]


async def test_of_equal_calls_that_are_kept_only_the_latest_is_looked_at(ledger: Ledger) -> None:
    """However many came in a month: one row is read, found by an index, and not what its caller sent."""
    inbox, now, window = Inbox(ledger), datetime.now(UTC), timedelta(minutes=5)
    for number in range(20):
        row = a_call(str(number), fingerprint="same", received_at=now - timedelta(minutes=20 - number))
        await inbox.accept(row, timedelta(seconds=1))
    with queries(ledger._writers) as made:
        receipt = await inbox.accept(a_call("again", fingerprint="same", received_at=now), window)
    assert (receipt.repeated, receipt.delivery_id) == (True, "19")
    (query,) = made
    assert not {"headers", "payload"} & set(query.columns)
    async with ledger._readers.connect() as connection:
        assert len((await connection.exec_driver_sql(query.statement, query.parameters)).all()) == 1
        if ledger.is_sqlite:
            plan = await connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {query.statement}", query.parameters)
            assert "(rule_id=? AND fingerprint=? AND received_at>?)" in str(plan.all())


async def test_who_waits_reads_no_payload(ledger: Ledger) -> None:
    """Whatever a caller sent, hundreds who wait look at it four times a second."""
    here, there = Inbox(ledger), Inbox(ledger)
    one = (await here.accept(a_call("one"))).delivery
    async with ledger.write() as session:
        await settle(session, [Settled(one.id, "dispatched", "run-1")], datetime.now(UTC))
    with queries(ledger._readers) as made:
        assert await there.settled(one.id, 30) == Settled(one.id, "dispatched", "run-1")
        async with ledger.read() as session:
            assert [found.delivery_id for found in await last_deliveries(session, 10)] == ["one"]
    assert len(made) == 2
    assert not [query for query in made if {"headers", "payload"} & set(query.columns)]


async def test_two_dispatchers_never_have_the_same_delivery(ledger: Ledger) -> None:
    """Claims are atomic; what is held is nobody else's until its lease ends or it is given back."""
    inbox = Inbox(ledger)
    await asyncio.gather(*(inbox.accept(anybodys(str(number))) for number in range(60)))
    parts = await asyncio.gather(*(take(ledger, f"holder-{n % 3}", 7) for n in range(9)))
    taken = [one for part in parts for one in part]
    assert sorted(taken, key=int) == [str(number) for number in range(60)]
    assert await take(ledger, "late") == []
    async with ledger.write() as session:
        ids = (await session.scalars(select(col(Delivery.id)).where(col(Delivery.holder) == "holder-1"))).all()
        await put_off(session, ids, datetime.now(UTC) - timedelta(seconds=1), holder="holder-2")
    assert await take(ledger, "late") == []
    async with ledger.write() as session:
        await put_off(session, ids, datetime.now(UTC) - timedelta(seconds=1), holder="holder-1")
    assert len(await take(ledger, "late")) == len(ids) > 0


async def test_a_lease_that_ended_is_anybodys(ledger: Ledger) -> None:
    """What a gateway took and did not settle in time is taken by another; the first word about it stands."""
    inbox = Inbox(ledger)
    receipt = await inbox.accept(anybodys("one"))
    async with ledger.write() as session:
        now = await ledger.now(session)
        await claim(session, "slow", now, now - timedelta(seconds=1), 1)
    assert await take(ledger, "quick") == ["one"]
    for status, run in (("dispatched", "run-1"), ("skipped", "run-2")):
        async with ledger.write() as session:
            await settle(session, [Settled(receipt.delivery.id, status, run)], datetime.now(UTC))  # type: ignore[arg-type]
    async with ledger.read() as session:
        found = await read_delivery(session, receipt.delivery.id)
    assert found is not None
    assert (found.status, found.run_id, found.attempts, found.holder) == ("dispatched", "run-1", 2, None)
    assert found.settled_at is not None
    assert await take(ledger, "again") == []


async def test_a_gateway_holds_so_many_and_leaves_the_rest_to_others(ledger: Ledger) -> None:
    """In a burst others can share the work at once; what comes while some wait stands behind them."""
    inbox = Inbox(ledger)
    await asyncio.gather(*(inbox.accept(a_call(str(number))) for number in range(MAX_HELD + 50)))
    assert (inbox.held, len(inbox.ready), inbox.backlog) == (MAX_HELD, MAX_HELD, True)
    inbox.announce([Settled(one.id, "dispatched", "run") for one in list(inbox.ready)[:10]])
    await inbox.accept(a_call("later"))
    assert inbox.held == MAX_HELD - 10
    assert len(await take(ledger, "another")) == 51


async def test_large_payloads_are_never_many_in_memory(ledger: Ledger) -> None:
    """Nobody holds one that only waits, and a claim takes few of them; none is forgotten."""
    inbox = Inbox(ledger)
    large = '"' + "x" * (12 * 1024 * 1024) + '"'
    for number in range(4):
        await inbox.accept(a_call(str(number), payload=large))
    assert (inbox.held, inbox.backlog) == (0, True)
    assert [await take(ledger, "holder") for _ in range(3)] == [["0", "1"], ["2", "3"], []]


async def test_whoever_waits_hears_what_became_of_it(ledger: Ledger) -> None:
    """At once where it is dispatched here, within a moment where another process does it, never too late."""
    here, there = Inbox(ledger), Inbox(ledger)
    mine = (await here.accept(a_call("mine"))).delivery
    assert await here.settled(mine.id, 0) is None
    waits = asyncio.create_task(here.settled(mine.id, 60))
    await asyncio.sleep(0)  # so that it has begun
    here.announce([Settled(mine.id, "dispatched", "run-1")])
    assert await waits == Settled(mine.id, "dispatched", "run-1")
    elsewhere = asyncio.create_task(there.settled(mine.id, 60))
    async with ledger.write() as session:
        await settle(session, [Settled(mine.id, "skipped", "run-1", "overlap: x")], datetime.now(UTC))
    assert await elsewhere == Settled(mine.id, "skipped", "run-1", "overlap: x")


async def test_what_a_dead_process_held_is_free_at_the_next_start(ledger: Ledger, ledger_settings: Settings) -> None:
    """After kill -9 everything that was answered is there, and the next gateway need not wait for leases to end."""
    process, told = start_gateway(ledger_settings, "killed")
    answered = [told.recv() for _ in range(300)]
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    process.join(30)
    try:
        while True:
            answered.append(told.recv())
    except (EOFError, OSError):
        pass
    async with open_ledger(ledger_settings) as again:
        async with again.read() as session:
            kept = set((await session.scalars(select(col(Delivery.delivery_id)))).all())
        assert set(answered) <= kept
        held = MAX_HELD if len(kept) > MAX_HELD else len(kept)
        assert len(await take(again, "early", 10_000)) == len(kept) - held
        await Inbox(again).take_over()
        assert len(await take(again, "next", 10_000)) >= held


async def test_what_the_database_refuses_is_not_accepted(tmp_path: Path) -> None:
    """The caller is told, and what comes next is accepted again."""
    settings = Settings(home=tmp_path)
    async with open_ledger(settings) as ledger:
        inbox = Inbox(ledger)
        broken = a_call("broken", payload=None)  # what no gateway makes: the database refuses it
        with pytest.raises(InboxClosed):
            await inbox.accept(broken)
        assert not (await inbox.accept(a_call("fine"))).repeated
