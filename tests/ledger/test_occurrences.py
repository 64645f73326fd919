"""The account in a real database: the same whatever is told twice, late, or in another order."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from sqlalchemy import delete, select
from sqlmodel import SQLModel

from proactive_prefect.ledger.db import Ledger, open_ledger
from proactive_prefect.ledger.log import NewEvent, append, read_events, read_head
from proactive_prefect.ledger.occurrences import apply, apply_deletion, expect, known_runs, open_runs, ref_of, settle
from proactive_prefect.ledger.outcomes import RunRef, StateFact
from proactive_prefect.ledger.resolutions import resolution_of, resolve
from proactive_prefect.ledger.tables import Event, LogHead, Occurrence, Resolution, Run
from proactive_prefect.settings import Settings

from .histories import LONG_AGO, NOON, a_run, histories, shuffled, story

TOLD = ("SCHEDULED/Scheduled", "PENDING/Pending", "RUNNING/Running", "COMPLETED/Completed")


async def tell(ledger: Ledger, ref: RunRef, facts: list[StateFact]) -> Occurrence:
    """Apply these states, in one transaction."""
    async with ledger.write() as session:
        return await apply(session, ref, facts, log_since=LONG_AGO)


async def account(ledger: Ledger) -> dict[str, Any]:
    """All that the ledger says, without what depends on when it was written."""
    leave_out = {"id", "recorded_at", "occurrence_id", "seq", "origin_id", "revision"}
    found: dict[str, Any] = {}
    async with ledger.read() as session:
        tables: tuple[type[SQLModel], ...] = (Occurrence, Run, Resolution, Event)
        for table in tables:
            rows = (await session.scalars(select(table))).all()
            found[table.__name__] = sorted(repr(sorted(row.model_dump(exclude=leave_out).items())) for row in rows)
    return found


async def empty(ledger: Ledger) -> None:
    """Back to nothing."""
    async with ledger.write() as session:
        for table in (Resolution, Run, Occurrence, Event):
            await session.execute(delete(table))
        (await session.scalars(select(LogHead))).one().seq = 0


@pytest.mark.slow
# Without shrinking, which takes minutes with a database in the loop: the failing history is short anyway.
@settings(
    max_examples=12,
    deadline=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(data=st.data())
def test_shuffled_and_repeated_histories_give_one_account(data: st.DataObject, ledger_settings: Settings) -> None:
    """Two runs of one moment and a webhook's, told in order once, then in pieces, mixed and repeated: one account."""
    refs = [a_run("run-1"), a_run("run-2"), a_run("run-3", rule_id="hook", kind="webhook", delivery_id="d1")]
    # One run of a moment is held at most: the gate skips the others as duplicates.
    told = [data.draw(histories(refs[0])), story(refs[1], "SCHEDULED/Scheduled", "CANCELLED/Skipped")]
    told.append(data.draw(histories(refs[2])))
    mixed = data.draw(shuffled([fact for facts in told for fact in facts]))
    by_run = {ref.run_id: ref for ref in refs}

    async def both() -> tuple[dict[str, Any], dict[str, Any]]:
        async with open_ledger(ledger_settings) as ledger:
            await empty(ledger)
            for ref, facts in zip(refs, told, strict=True):
                await tell(ledger, ref, facts)
            in_order = await account(ledger)
            await empty(ledger)
            for fact in mixed:
                await tell(ledger, by_run[fact.run_id], [fact])
            async with ledger.read() as session:
                seqs = [event.seq for event in await read_events(session)]
                assert seqs == list(range(1, len(seqs) + 1))
                assert (await read_head(session)).seq == len(seqs)
            return in_order, await account(ledger)

    in_order, mixed_up = asyncio.run(both())
    assert mixed_up == in_order


async def test_a_run_becomes_an_occurrence_with_its_events(ledger: Ledger) -> None:
    """Rule, moment, outcome and times are in the account; each step is in the log, in order, in the envelope."""
    occurrence = await tell(ledger, a_run(), story(a_run(), *TOLD))
    assert (occurrence.rule_id, occurrence.due, occurrence.outcome) == ("disk", NOON, "completed")
    assert occurrence.started_at == NOON + timedelta(seconds=2)
    async with ledger.read() as session:
        events = await read_events(session)
    assert [event.event_type for event in events] == ["heartbeat_scheduled", "heartbeat_started", "heartbeat_completed"]
    last = events[-1]
    assert (last.seq, last.source, last.source_ref, last.owner_id) == (3, "heartbeat", "disk", "local")
    assert (last.status, last.occurred_at_utc) == ("completed", NOON + timedelta(seconds=3))
    assert last.payload["run_id"] == "run-1"


@pytest.mark.parametrize("kind", ["cron", "skill", "webhook"])
async def test_the_other_kinds_speak_of_runs(ledger: Ledger, kind: str) -> None:
    """cron_run_started, skill_run_missed, webhook_run_skipped: the names that are promised."""
    ref = a_run(kind=kind)
    await tell(
        ledger, ref, story(ref, "SCHEDULED/Scheduled", "PAUSED/Missed", "SCHEDULED/Resuming", "CANCELLED/Skipped")
    )
    async with ledger.read() as session:
        names = [event.event_type for event in await read_events(session)]
    assert set(names) == {f"{kind}_run_scheduled", f"{kind}_run_missed", "missed_resolved", f"{kind}_run_skipped"}


async def test_runs_of_one_moment_are_one_occurrence(ledger: Ledger) -> None:
    """A second run for the same time belongs to the same occurrence, which ran."""
    await tell(ledger, a_run("run-2"), story(a_run("run-2"), "SCHEDULED/Scheduled", "CANCELLED/Skipped"))
    await tell(ledger, a_run("run-1"), story(a_run("run-1"), *TOLD))
    async with ledger.read() as session:
        (occurrence,) = (await session.scalars(select(Occurrence))).all()
    assert (occurrence.outcome, occurrence.run_id) == ("completed", "run-1")


async def test_the_first_decision_stands(ledger: Ledger) -> None:
    """Whoever decides second is told what was decided first, and nothing changes."""
    occurrence = await tell(ledger, a_run(), story(a_run(), "SCHEDULED/Scheduled", "PAUSED/Missed"))
    assert occurrence.outcome == "missed"
    for who, action, first in (("ann", "delete_missed", True), ("bob", "approve_backfill_run", False)):
        async with ledger.write() as session:
            held = await session.get_one(Occurrence, occurrence.id)
            made, is_first = await resolve(session, held, action, by=who, via="api", at=NOON)  # type: ignore[arg-type]
            await settle(session, held)
        assert (made.resolved_by, made.action, is_first, held.outcome) == ("ann", "delete_missed", first, "deleted")
    # What Prefect then tells about it does not make it another's decision.
    await tell(ledger, a_run(), story(a_run(), "SCHEDULED/Scheduled", "PAUSED/Missed", "CANCELLED/Cancelled"))
    async with ledger.read() as session:
        assert (await session.scalars(select(Resolution))).one().resolved_by == "ann"
        assert [event.event_type for event in await read_events(session)].count("missed_resolved") == 1


async def test_resuming_in_prefect_is_a_decision(ledger: Ledger) -> None:
    """Resume approves; who it was, Prefect does not say."""
    occurrence = await tell(ledger, a_run(), story(a_run(), "PAUSED/Missed", "SCHEDULED/Resuming"))
    assert occurrence.outcome == "approved"
    async with ledger.read() as session:
        made = await resolution_of(session, occurrence.id or 0)
    assert made is not None
    assert (made.action, made.resolved_by, made.via) == ("approve_backfill_run", "prefect", "prefect")


@pytest.mark.parametrize(
    ("states", "wanted", "event"),
    [
        (("SCHEDULED/Scheduled",), "skipped", "heartbeat_skipped"),
        (("SCHEDULED/Scheduled", "PAUSED/Missed"), "deleted", "missed_resolved"),
        (("SCHEDULED/Scheduled", "RUNNING/Running"), "unknown", "heartbeat_failed"),
        (TOLD, "completed", "heartbeat_completed"),
    ],
)
async def test_a_run_that_was_deleted_in_prefect(
    ledger: Ledger, states: tuple[str, ...], wanted: str, event: str
) -> None:
    """Deleting a missed run drops it; one at work is lost sight of; one that had ended stays what it was."""
    await tell(ledger, a_run(), story(a_run(), *states))
    for _ in range(2):
        async with ledger.write() as session:
            await apply_deletion(session, "run-1", NOON + timedelta(minutes=1), log_since=LONG_AGO)
    async with ledger.read() as session:
        assert (await session.scalars(select(Occurrence))).one().outcome == wanted
        events = await read_events(session)
        assert events[-1].event_type == event
        assert [one.event_type for one in events].count(event) == 1


@pytest.mark.parametrize(("ended", "wanted"), [("FAILED/Failed", "failed"), ("CRASHED/Crashed", "unknown")])
async def test_a_run_that_was_deleted_while_it_ran_once_more_is_over(ledger: Ledger, ended: str, wanted: str) -> None:
    """It does not run for ever, and is not looked for any more; what it had come to before stands."""
    again = ("SCHEDULED/AwaitingRetry", "RUNNING/Running")
    assert (await tell(ledger, a_run(), story(a_run(), *TOLD[:3], ended, *again))).running
    async with ledger.write() as session:
        await apply_deletion(session, "run-1", NOON + timedelta(minutes=1), log_since=LONG_AGO)
    async with ledger.read() as session:
        occurrence = (await session.scalars(select(Occurrence))).one()
        assert (occurrence.outcome, occurrence.running) == (wanted, False)
        assert await open_runs(session) == []


async def test_an_expected_occurrence_waits_for_its_run(ledger: Ledger) -> None:
    """One that was expected before any run was seen becomes the run's, not a second one."""
    async with ledger.write() as session:
        expected = await expect(session, rule_id="disk", kind="heartbeat", owner_id="local", due=NOON)
        again = await expect(session, rule_id="disk", kind="heartbeat", owner_id="local", due=NOON)
        assert expected.id == again.id
    assert (await tell(ledger, a_run(), story(a_run(), *TOLD))).id == expected.id


async def test_open_runs_are_those_that_something_must_become_of(ledger: Ledger) -> None:
    """Waiting, held and running ones; none that has ended."""
    for number, last in enumerate(("SCHEDULED/Late", "PAUSED/Missed", "RUNNING/Running", "COMPLETED/Quiet")):
        ref = a_run(f"run-{number}", due=NOON + timedelta(minutes=number))
        await tell(ledger, ref, story(ref, "SCHEDULED/Scheduled", last))
    async with ledger.read() as session:
        assert {run.run_id for run in await open_runs(session)} == {"run-0", "run-1", "run-2"}
        known = await known_runs(session, ["run-3", "run-9"])
        assert ref_of(known["run-3"][1], known["run-3"][0]).due == NOON + timedelta(minutes=3)


async def test_what_was_before_the_retention_is_accounted_for_and_not_logged(ledger: Ledger) -> None:
    """Old states found again, after their events were taken away, do not come into the log a second time."""
    async with ledger.write() as session:
        occurrence = await apply(session, a_run(), story(a_run(), *TOLD), log_since=NOON + timedelta(days=1))
        assert occurrence.outcome == "completed"
        assert await read_events(session) == []


HOSTILE = "\x00 \ud800 \udc00 '; DROP TABLE events; -- \u202e \U0001f4a5 {{ }} $ref" + "x" * 5000


async def test_hostile_text_is_kept_as_text(ledger: Ledger) -> None:
    """What a database cannot store is replaced; everything else stays what it is, and bounded."""
    facts = story(a_run(), "RUNNING/Running", "FAILED/Failed", messages=["", HOSTILE])
    occurrence = await tell(ledger, a_run(), facts)
    await tell(ledger, a_run(), facts)
    async with ledger.write() as session:
        await append(session, [NewEvent(HOSTILE, "x", "cron", HOSTILE, "o", NOON, "s", {HOSTILE: [HOSTILE, {"a": 1}]})])
    async with ledger.read() as session:
        event = (await read_events(session))[-1]
        reason = (await session.get_one(Occurrence, occurrence.id)).reason
    assert "DROP TABLE" in reason
    assert len(reason) <= 1000
    assert "\x00" not in event.source_ref
    assert "\U0001f4a5 {{ }} $ref" in event.source_ref
