"""The event log: one order, no gap, nothing twice, whoever writes and whoever dies."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from proactive_prefect.ledger.db import Ledger, open_ledger
from proactive_prefect.ledger.leases import hold, release
from proactive_prefect.ledger.log import append, follow, lock_log, mark_emitted, prune, read_events, read_head
from proactive_prefect.settings import Settings

from .histories import an_event
from .writers import committed, start_writer


@pytest.mark.slow
def test_writers_that_are_killed_leave_no_gap_and_no_double(ledger_settings: Settings) -> None:
    """kill -9 in the middle of writing, again and again, two at a time: what was committed is there, once, in order."""
    told: dict[str, list[int]] = {}
    for round_ in range(8):
        writers = {f"writer-{round_}-{one}": start_writer(ledger_settings, f"writer-{round_}-{one}") for one in "ab"}
        for name, (_, here) in writers.items():
            told[name] = [here.recv() for _ in range(1 + round_)]
        for name, (process, here) in writers.items():
            process.kill()
            process.join(60)
            told[name] += committed(here)
    check = asyncio.run(_all(ledger_settings))
    assert [seq for seq, _ in check] == list(range(1, len(check) + 1))
    keys = [key for _, key in check]
    assert len(keys) == len(set(keys))
    for name, numbers in told.items():
        assert {f"{name}-{number}" for number in numbers} <= set(keys), f"{name} was told that it had committed"


async def _all(settings: Settings) -> list[tuple[int, str]]:
    async with open_ledger(settings) as ledger, ledger.read() as session:
        events = await read_events(session, limit=1_000_000)
        assert (await read_head(session)).seq == len(events)
        return [(event.seq, event.key) for event in events]


async def test_a_reader_never_passes_an_event_that_is_yet_to_come(ledger: Ledger) -> None:
    """Numbers come in the order of commits: following while many write gives each event, in order, without a gap."""
    count = 40

    async def write(name: str) -> None:
        for number in range(count):
            async with ledger.write() as session:
                await append(session, [an_event(f"{name}-{number}")])

    async def read() -> list[int]:
        seen: list[int] = []
        async for events in follow(ledger, 0):
            seen += [event.seq for event in events]
            if len(seen) == 3 * count:
                break
        return seen

    async with asyncio.timeout(120):
        seen, *_ = await asyncio.gather(read(), *(write(name) for name in "abc"))
    assert seen == list(range(1, 3 * count + 1))


async def test_a_follower_hears_what_another_process_writes(ledger: Ledger, ledger_settings: Settings) -> None:
    """The log is followed across processes, and says by empty batches that it is alive."""
    async with open_ledger(ledger_settings) as other:
        batches = follow(ledger, 0)
        async with asyncio.timeout(60):
            assert list(await anext(batches)) == []
            async with other.write() as session:
                await append(session, [an_event("elsewhere")])
            async for events in batches:
                if events:
                    assert [event.key for event in events] == ["elsewhere"]
                    break


async def test_the_log_is_bounded_without_a_gap(ledger: Ledger) -> None:
    """The oldest entries go, those that Prefect has been given; numbers go on, and readers can tell what is gone."""
    async with ledger.write() as session:
        await append(session, [an_event(str(number)) for number in range(10)])
    later = datetime.now(UTC) + timedelta(hours=1)
    async with ledger.write() as session:
        assert await prune(session, later) == 0
        await mark_emitted(session, 6)
    async with ledger.write() as session:
        assert await prune(session, datetime.now(UTC) - timedelta(hours=1)) == 0
        assert await prune(session, later) == 6
        assert [event.seq for event in await append(session, [an_event("new")])] == [11]
    async with ledger.read() as session:
        head = await read_head(session)
        assert (head.oldest, head.seq, head.emitted) == (7, 11, 6)
        assert [event.seq for event in await read_events(session, since_seq=8, limit=2)] == [9, 10]


async def test_an_empty_log_says_where_it_goes_on(ledger: Ledger) -> None:
    """Before the first event the oldest is the one to come."""
    async with ledger.read() as session:
        head = await read_head(session)
    assert (head.oldest, head.seq) == (1, 0)


async def test_one_fact_is_logged_once_within_and_between_transactions(ledger: Ledger) -> None:
    """The first telling of a fact counts."""
    async with ledger.write() as session:
        assert len(await append(session, [an_event("a"), an_event("b"), an_event("a")])) == 2
    async with ledger.write() as session:
        assert [event.key for event in await append(session, [an_event("b"), an_event("c")])] == ["c"]
        assert (await lock_log(session)).seq == 3


async def test_a_lease_is_one_holders_until_it_ends_or_is_given_back(ledger: Ledger) -> None:
    """The others are refused while it lives; after its end, or at once when it was given back, the next one has it."""
    hour = timedelta(hours=1)
    assert await hold(ledger, "feed", "a", hour)
    assert not await hold(ledger, "feed", "b", hour)
    assert await hold(ledger, "other", "b", hour)
    await release(ledger, "feed", "b")
    assert not await hold(ledger, "feed", "b", hour)
    await release(ledger, "feed", "a")
    assert await hold(ledger, "feed", "b", timedelta(0))
    assert await hold(ledger, "feed", "a", hour)
    taken = await asyncio.gather(*(hold(ledger, "new", str(one), hour) for one in range(8)))
    assert sum(taken) == 1
