"""Looks that find what they did not expect: another server, runs that come back, very many, a broken connection."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect.states import Running
from sqlalchemy import select, text
from sqlalchemy.exc import DBAPIError
from sqlmodel import col

from proactive_prefect.firing.gate import Hold
from proactive_prefect.firing.outcome import missed
from proactive_prefect.ledger.cursors import RECONCILED, move, read_cursor
from proactive_prefect.ledger.db import open_ledger
from proactive_prefect.ledger.log import lock_log, read_events
from proactive_prefect.ledger.occurrences import apply, apply_deletion, apply_return, known_runs
from proactive_prefect.ledger.reconcile import apply_runs, reconcile
from proactive_prefect.ledger.resolutions import resolve
from proactive_prefect.ledger.tables import Occurrence, Resolution
from proactive_prefect.prefect_api import connect
from proactive_prefect.prefect_api.events import StateChange
from proactive_prefect.settings import Settings
from tests.conftest import Server, start_server, stop
from tests.gateway.conftest import forget
from tests.support import wait_until

from .histories import LONG_AGO, NOON, a_run, story
from .test_feed import HEARTBEAT, RAN, Ledger, Rules, api, becomes, logged, occurrence, rules

__all__ = ["api", "rules"]


@pytest.fixture(scope="module")
def another_server(prefect_server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A second Prefect server, with nothing in it."""
    server, process = start_server(tmp_path_factory.mktemp("another"))
    try:
        yield server
    finally:
        stop(process)


async def test_a_look_at_another_server_takes_nothing_for_deleted(
    ledger: Ledger, rules: Rules, another_server: Server
) -> None:
    """An empty Prefect says nothing about the runs of ours: held and running ones stay what they are."""
    await rules.deploy(HEARTBEAT)
    held, busy = await rules.run("beat", missed(Hold("late"))), await rules.run("beat", *RAN[:2])
    await reconcile(rules.api, ledger, Settings())
    async with ledger.read() as session:
        looked = await read_cursor(session, RECONCILED)
    with temporary_settings({PREFECT_API_URL: another_server.api_url}):
        async with connect() as other:
            for _ in range(2):
                await reconcile(other, ledger, Settings())
    await becomes(ledger, held, "missed", within=0)
    assert (await becomes(ledger, busy, "expected", within=0)).running
    async with ledger.read() as session:
        assert await read_cursor(session, RECONCILED) == looked  # what ends meanwhile is found afterwards
    # On the right one, a run that somebody deletes is one that somebody deleted.
    await rules.api.delete(f"/flow_runs/{held.id}")
    await reconcile(rules.api, ledger, Settings())
    await becomes(ledger, held, "deleted", within=0)


async def test_the_last_run_of_a_rule_that_is_gone_is_deleted_with_it(ledger: Ledger, rules: Rules) -> None:
    """Prefect still has a run that ended long ago: it is the right server, and what it has no more is deleted."""
    await rules.deploy(HEARTBEAT)
    run = await rules.run("beat", missed(Hold("late")))
    await rules.run("beat", *RAN)
    await reconcile(rules.api, ledger, Settings())
    async with ledger.write() as session:
        await move(session, RECONCILED, datetime.now(UTC) + timedelta(hours=1))
    await rules.api.delete(f"/flow_runs/{run.id}")
    await forget(rules.project)
    await reconcile(rules.api, ledger, Settings())
    await becomes(ledger, run, "deleted", within=0)


async def test_a_run_that_is_found_again_was_not_deleted(ledger: Ledger, rules: Rules) -> None:
    """It waits again, nobody has decided about it, and whatever is decided then is the first decision, and logged."""
    await rules.deploy(HEARTBEAT)
    held, busy = await rules.run("beat", missed(Hold("late"))), await rules.run("beat", *RAN[:2])
    await reconcile(rules.api, ledger, Settings())
    async with ledger.write() as session:
        for run in (held, busy):  # as a look at another server does
            await apply_deletion(session, str(run.id), datetime.now(UTC), log_since=LONG_AGO)
    await becomes(ledger, held, "deleted", within=0)
    for _ in range(2):
        await reconcile(rules.api, ledger, Settings())
    found = await becomes(ledger, held, "missed", within=0)
    assert (await becomes(ledger, busy, "expected", within=0)).running
    assert (await logged(ledger, rules.id("beat")))[-1] == "heartbeat_missed"
    async with ledger.read() as session:
        assert (await session.scalars(select(Resolution).where(col(Resolution.occurrence_id) == found.id))).all() == []
    await rules.api.delete(f"/flow_runs/{held.id}")
    await reconcile(rules.api, ledger, Settings())
    await becomes(ledger, held, "deleted", within=0)
    assert (await logged(ledger, rules.id("beat"))).count("missed_resolved") == 2


async def test_a_decision_that_a_person_made_outlives_the_return_of_its_run(ledger: Ledger) -> None:
    """Only what the deletion decided is taken back."""
    async with ledger.write() as session:
        held = await apply(session, a_run(), story(a_run(), "PAUSED/Missed"), log_since=LONG_AGO)
        await resolve(session, held, "delete_missed", by="ann", via="api", at=NOON, run_id="run-1")
        await apply_deletion(session, "run-1", NOON, log_since=LONG_AGO)
        await apply_return(session, "run-1", NOON)
    async with ledger.read() as session:
        assert (await session.scalars(select(Resolution))).one().resolved_by == "ann"
        assert (await session.scalars(select(Occurrence))).one().outcome == "deleted"
        assert [one.event_type for one in await read_events(session)][-1] == "missed_resolved"


async def test_a_run_knows_the_session_of_its_rule(ledger: Ledger, rules: Rules) -> None:
    """The occurrence and every event of a real run name it."""
    await rules.deploy({**HEARTBEAT, "session": "s1"})
    run = await rules.run("beat", Running())
    await reconcile(rules.api, ledger, Settings())
    found = await occurrence(ledger, run)
    assert found is not None
    assert found.session_id == "s1"
    async with ledger.read() as session:
        events = await read_events(session, rule_id=rules.id("beat"))
    assert {one.session_id for one in events if "job" not in one.event_type} == {"s1"}


async def test_forty_thousand_runs_are_looked_up(ledger: Ledger) -> None:
    """However many runs a look finds, the account can be asked which of them it has."""
    async with ledger.write() as session:
        await apply(session, a_run(), story(a_run(), "SCHEDULED/Scheduled"), log_since=LONG_AGO)
    async with ledger.read() as session:
        assert list(await known_runs(session, ["run-1", *(f"other-{number}" for number in range(40_000))])) == ["run-1"]


async def test_what_a_broken_connection_kept_from_being_stored_comes_again(postgres_url: str) -> None:
    """The database ends the connection in the middle: the caller is told, so that nothing is taken for read."""
    settings = Settings(database_url=postgres_url)
    ref = a_run("broken")
    [fact] = story(ref, "RUNNING/Running")
    change = StateChange(fact.run_id, fact.state_id, fact.type, fact.name, fact.message, fact.at, fact.before)
    waiting = text("SELECT pid FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()")
    async with open_ledger(settings) as ledger, open_ledger(settings) as operator:
        async with operator.write() as session:
            await lock_log(session)
            applying = asyncio.create_task(apply_runs(ledger, [(ref, [change])], settings))

            async def waits() -> int | None:
                return await session.scalar(waiting)

            pid = await wait_until(waits, what="the writer waits for its turn", timeout=30)
            await session.execute(text("SELECT pg_terminate_backend(:pid)"), {"pid": pid})
            with pytest.raises(DBAPIError):
                await applying
        await apply_runs(ledger, [(ref, [change])], settings)
        async with ledger.read() as session:
            assert (await known_runs(session, ["broken"]))["broken"][1].running
