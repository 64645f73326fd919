"""Running totals: kept with the account, told once, and the same from every process."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

from alembic import command
from sqlalchemy import Connection

from proactive_prefect.ledger.db import Ledger
from proactive_prefect.ledger.depths import read_depths
from proactive_prefect.ledger.log import append
from proactive_prefect.ledger.migrate import alembic_config
from proactive_prefect.ledger.occurrences import apply
from proactive_prefect.ledger.outcomes import RunRef, StateFact
from proactive_prefect.ledger.tallies import Tallies, read_tallies

from .histories import LONG_AGO, NOON, a_run, an_event, story


async def _tell(ledger: Ledger, run: RunRef, facts: Sequence[StateFact]) -> Tallies:
    async with ledger.write() as session:
        await apply(session, run, facts, log_since=LONG_AGO)
    async with ledger.read() as session:
        return await read_tallies(session)


async def test_a_run_counts_once_however_often_it_is_told(ledger: Ledger) -> None:
    """Its outcome, its lag and its length are counted once, whether its states come together, one by one or again."""
    run = a_run()
    facts = story(run, "SCHEDULED/Scheduled", "PENDING/Pending", "RUNNING/Running", "COMPLETED/Completed")
    for fact in facts:
        await _tell(ledger, run, [fact])
    await _tell(ledger, run, facts[::-1])
    found = await _tell(ledger, run, facts)
    assert found["outcomes", "heartbeat", "completed"] == 1
    assert found["lag", "heartbeat", "count"] == 1
    assert found["lag", "heartbeat", "sum"] == 2.0
    assert found["lag", "heartbeat", "2.5"] == 1
    assert found["lag", "", "last"] == found["lag", "", "max"] == 2.0
    assert found["duration", "heartbeat", "1"] == 1
    assert found["events", "heartbeat", "heartbeat_completed"] == 1
    assert ("outcomes", "heartbeat", "expected") not in found


async def test_the_greatest_lag_stays_and_the_last_one_moves(ledger: Ledger) -> None:
    """`max` only grows; `last` is that of the latest run."""
    late, soon = a_run("late"), a_run("soon", due=NOON + timedelta(hours=1))
    await _tell(ledger, late, story(late, *["SCHEDULED/Scheduled"] * 8, "RUNNING/Running", "COMPLETED/Quiet"))
    found = await _tell(ledger, soon, story(soon, "SCHEDULED/Scheduled", "RUNNING/Running", "COMPLETED/Quiet"))
    assert (found["lag", "", "max"], found["lag", "", "last"]) == (8.0, 1.0)
    assert found["outcomes", "heartbeat", "quiet"] == 2


async def test_what_waited_for_a_decision_is_no_lag(ledger: Ledger) -> None:
    """A missed and approved occurrence counts under each of its outcomes, and not among the late starts."""
    run = a_run()
    states = ["SCHEDULED/Scheduled", "PAUSED/Missed", "SCHEDULED/Resuming", "RUNNING/Running", "COMPLETED/Completed"]
    for fact in story(run, *states):
        found = await _tell(ledger, run, [fact])
    counted = {label: value for (measure, _, label), value in found.items() if measure == "outcomes"}
    assert counted == {"missed": 1, "approved": 1, "completed": 1}
    assert ("lag", "heartbeat", "count") not in found
    assert found["duration", "heartbeat", "count"] == 1


async def test_a_transaction_that_fails_counts_nothing(ledger: Ledger) -> None:
    """The totals are of what was committed."""
    try:
        async with ledger.write() as session:
            await append(session, [an_event("a")])
            raise RuntimeError
    except RuntimeError:
        pass
    async with ledger.read() as session:
        assert await read_tallies(session) == {}


async def test_a_ledger_from_before_is_counted_when_it_is_brought_up_to_date(ledger: Ledger) -> None:
    """The migration counts the outcomes and events that are there."""
    run = a_run()
    before = await _tell(ledger, run, story(run, "SCHEDULED/Scheduled", "RUNNING/Running", "FAILED/Failed"))

    def again(connection: Connection) -> None:
        config = alembic_config(connection)
        command.downgrade(config, "0001")
        command.upgrade(config, "head")

    async with ledger._writers.begin() as connection:
        await connection.run_sync(again)
    async with ledger.read() as session:
        after = await read_tallies(session)
    assert after == {key: value for key, value in before.items() if key[0] in ("outcomes", "events")}


async def test_what_waits_is_told_by_kind(ledger: Ledger) -> None:
    """Held, due, and at work, also once more after a failure; what is for the future is none of them."""
    held, due, busy, again, future = (
        a_run("held"),
        a_run("due", rule_id="a"),
        a_run("busy", rule_id="b", kind="cron"),
        a_run("again", rule_id="d", kind="skill"),
        a_run("future", rule_id="c", due=NOON + timedelta(hours=3)),
    )
    await _tell(ledger, held, story(held, "SCHEDULED/Scheduled", "PAUSED/Missed"))
    await _tell(ledger, due, story(due, "SCHEDULED/Scheduled", "PENDING/Pending"))
    await _tell(ledger, busy, story(busy, "SCHEDULED/Scheduled", "RUNNING/Running"))
    retried = ("RUNNING/Running", "CRASHED/Crashed", "SCHEDULED/AwaitingRetry", "RUNNING/Running")
    await _tell(ledger, again, story(again, *retried))
    await _tell(ledger, future, story(future, "SCHEDULED/Scheduled"))
    async with ledger.read() as session:
        found = await read_depths(session, NOON + timedelta(hours=2))
    assert (dict(found.missed), dict(found.due), dict(found.running)) == (
        {"heartbeat": 1},
        {"heartbeat": 1},
        {"cron": 1, "skill": 1},
    )
    assert found.oldest_due == NOON
