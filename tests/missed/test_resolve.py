"""The decision about a missed run: recorded once, by the first who makes it, whether or not Prefect answers."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import event, select

from proactive_prefect.errors import InputError
from proactive_prefect.ledger.db import Ledger
from proactive_prefect.ledger.log import read_events
from proactive_prefect.ledger.occurrences import apply
from proactive_prefect.ledger.tables import Resolution, ResolutionAction
from proactive_prefect.ledger.versions import SeenRule, note_rules
from proactive_prefect.missed.carry import has_more, turns
from proactive_prefect.missed.queue import read_queue
from proactive_prefect.missed.resolve import find_missed, resolve_missed
from proactive_prefect.prefect_api import PrefectApi
from proactive_prefect.rules.models import HeartbeatRule, to_snapshot
from proactive_prefect.settings import Settings
from tests.ledger.histories import LONG_AGO, NOON, a_run, story
from tests.support import free_port

from .deciders import start_decider

HELD = ("SCHEDULED/Scheduled", "PAUSED/Missed")


async def held(ledger: Ledger, number: int, *, rule_id: str = "disk", states: tuple[str, ...] = HELD) -> int:
    """An occurrence that was missed; they are due an hour after each other."""
    ref = a_run(f"run-{rule_id}-{number}", rule_id=rule_id, due=NOON + timedelta(hours=number))
    async with ledger.write() as session:
        occurrence = await apply(session, ref, story(ref, *states), log_since=LONG_AGO)
    assert occurrence.id is not None
    return occurrence.id


async def note(ledger: Ledger, rule_id: str, **keys: Any) -> None:
    """A rule that is deployed."""
    action = {"type": "python", "call": "flows.actions:look"}
    rule = HeartbeatRule.model_validate({"id": rule_id, "every": "1h", "action": action, **keys})
    seen = SeenRule(rule_id, "heartbeat", "deployment", to_snapshot(rule), "active", LONG_AGO, LONG_AGO)
    async with ledger.write() as session:
        await note_rules(session, [seen], NOON, log_since=LONG_AGO)


async def resolutions(ledger: Ledger) -> list[Resolution]:
    """All of them."""
    async with ledger.read() as session:
        return list((await session.scalars(select(Resolution))).all())


async def test_a_decision_is_recorded_with_who_and_how_while_prefect_is_away(
    ledger: Ledger, ledger_settings: Settings, away: PrefectApi
) -> None:
    """It stands, is logged once, and is carried out later."""
    one = await held(ledger, 1)
    for status in ("resolved", "already"):
        [answer] = await resolve_missed(
            ledger, away, ledger_settings, [one], "approve_backfill_run", by="ada", via="page"
        )
        assert (answer.status, answer.by, answer.via, answer.outcome) == (status, "ada", "page", "approved")
        assert answer.at is not None
        assert not answer.carried_out
    async with ledger.read() as session:
        logged = [event for event in await read_events(session) if event.event_type == "missed_resolved"]
        assert [turn.occurrence_id for turn in await turns(session)] == [one]
    assert [(event.payload["resolved_by"], event.status) for event in logged] == [("ada", "approve_backfill_run")]


async def test_the_first_decision_stands(ledger: Ledger, ledger_settings: Settings, away: PrefectApi) -> None:
    """A later one is told which, and changes nothing."""
    one = await held(ledger, 1)
    await resolve_missed(ledger, away, ledger_settings, [one], "delete_missed", by="ada", via="api")
    [answer] = await resolve_missed(ledger, away, ledger_settings, [one], "approve_backfill_run", by="bob", via="cli")
    assert (answer.status, answer.action, answer.by, answer.outcome) == ("already", "delete_missed", "ada", "deleted")
    assert len(await resolutions(ledger)) == 1


async def test_what_was_not_missed_is_left_alone(ledger: Ledger, ledger_settings: Settings, away: PrefectApi) -> None:
    """Such as what has run."""
    one = await held(ledger, 1, states=("SCHEDULED/Scheduled", "RUNNING/Running", "COMPLETED/Completed"))
    [answer] = await resolve_missed(ledger, away, ledger_settings, [one], "delete_missed", by="ada", via="api")
    assert (answer.status, answer.outcome, answer.action) == ("not_missed", "completed", None)
    assert await resolutions(ledger) == []


async def test_processes_that_decide_at_once_never_both_win(ledger: Ledger, ledger_settings: Settings) -> None:
    """Of two processes that approve, and two that delete or move, each occurrence is decided by exactly one."""
    ids = [await held(ledger, number) for number in range(12)]
    url = f"http://127.0.0.1:{free_port()}/api"
    wanted: list[tuple[str, ResolutionAction, list[int]]] = [
        ("ada", "approve_backfill_run", ids),
        ("bob", "delete_missed", ids[::-1]),
        ("eve", "reschedule", ids[6:] + ids[:6]),
    ]
    running = [start_decider(ledger_settings, url, *one) for one in wanted]

    def race() -> list[list[int]]:
        for _, told in running:
            assert told.recv() == "ready"
        for _, told in running:
            told.send("go")
        return [told.recv() for _, told in running]

    won = await asyncio.wait_for(asyncio.to_thread(race), 120)
    for process, _ in running:
        await asyncio.to_thread(process.join, 30)
    assert sorted(one for mine in won for one in mine) == sorted(ids)
    stands = {one.occurrence_id: one.resolved_by for one in await resolutions(ledger)}
    for (by, _, _), mine in zip(wanted, won, strict=True):
        assert all(stands[one] == by for one in mine)


@pytest.mark.parametrize(
    ("action", "target", "said"),
    [
        ("reschedule", None, "needs the time"),
        ("reschedule", datetime(2099, 1, 1), "no offset"),  # noqa: DTZ001 - the naive one is the point
        ("reschedule", datetime(2020, 1, 1, tzinfo=UTC), "not a time to come"),
        ("reschedule", datetime(2999, 1, 1, tzinfo=UTC), "not a time to come"),
        ("delete_missed", datetime(2030, 1, 1, tzinfo=UTC), "takes no time"),
    ],
)
async def test_a_wrong_target_changes_nothing(
    ledger: Ledger,
    ledger_settings: Settings,
    away: PrefectApi,
    action: ResolutionAction,
    target: datetime | None,
    said: str,
) -> None:
    """Nor does an occurrence that nobody knows, beside one that is there."""
    one = await held(ledger, 1)
    with pytest.raises(InputError, match=said):
        await resolve_missed(ledger, away, ledger_settings, [one], action, by="a", via="api", target=target)
    with pytest.raises(InputError, match="no occurrence"):
        await resolve_missed(ledger, away, ledger_settings, [one, 99], "delete_missed", by="a", via="api")
    assert await resolutions(ledger) == []


async def test_those_of_a_rule_or_before_a_time_are_found(ledger: Ledger) -> None:
    """Only those that wait for a decision, the oldest first."""
    disk = [await held(ledger, number) for number in (2, 1)]
    other = await held(ledger, 3, rule_id="other")
    async with ledger.read() as session:
        assert [one.id for one in await find_missed(session)] == [disk[1], disk[0], other]
        assert [one.id for one in await find_missed(session, rule_ids=["other"])] == [other]
        before = NOON + timedelta(hours=2)
        assert [one.id for one in await find_missed(session, before=before)] == [disk[1]]


async def test_the_queue_says_what_becomes_of_each(ledger: Ledger, ledger_settings: Settings, away: PrefectApi) -> None:
    """Who waits for a decision and until when, and who for which turn: high priority first, then the oldest."""
    await note(ledger, "urgent", priority="high")
    await note(ledger, "plain", stale_after="10h")
    ids = {name: await held(ledger, number, rule_id=name) for number, name in enumerate(("plain", "other", "urgent"))}
    approved = [ids["other"], ids["urgent"]]
    await resolve_missed(ledger, away, ledger_settings, approved, "approve_backfill_run", by="a", via="api")
    async with ledger.read() as session:
        queue = await read_queue(session, ledger_settings, NOON + timedelta(hours=3))
        page = await read_queue(session, ledger_settings, NOON, limit=1, offset=1)
    assert [(one.rule_id, one.waits_for, one.turn) for one in queue.items] == [
        ("plain", "decision", None),
        ("other", "turn", 2),
        ("urgent", "turn", 1),
    ]
    assert [one.stale_at for one in queue.items] == [NOON + timedelta(hours=10), None, None]
    assert queue.items[0].late_by == 3 * 3600
    assert (queue.total, queue.in_flight) == (3, 0)
    assert [one.rule_id for one in page.items] == ["other"]


async def test_an_approved_run_that_was_cancelled_before_its_turn_waits_for_nothing(
    ledger: Ledger, ledger_settings: Settings, away: PrefectApi
) -> None:
    """Nobody goes on looking for its turn."""
    one = await held(ledger, 1)
    await resolve_missed(ledger, away, ledger_settings, [one], "approve_backfill_run", by="ada", via="api")
    assert await has_more(ledger)
    await held(ledger, 1, states=(*HELD, "CANCELLED/Cancelled"))
    async with ledger.read() as session:
        assert await turns(session) == []
    assert not await has_more(ledger)


async def test_any_number_of_turns_fits_into_a_question(
    ledger: Ledger, ledger_settings: Settings, away: PrefectApi
) -> None:
    """A database takes so many parameters and no more: the queue does not name each run that waits for its turn."""
    ids = [await held(ledger, number) for number in range(30)]
    await resolve_missed(ledger, away, ledger_settings, ids[:25], "approve_backfill_run", by="ada", via="api")
    most = 0

    def hear(_connection: Any, _cursor: Any, _statement: str, parameters: Any, *_: Any) -> None:
        nonlocal most
        most = max(most, len(parameters))

    engine = ledger._readers.sync_engine
    event.listen(engine, "before_cursor_execute", hear)
    try:
        async with ledger.read() as session:
            queue = await read_queue(session, ledger_settings, NOON)
    finally:
        event.remove(engine, "before_cursor_execute", hear)
    assert (queue.total, len(queue.items), sum(one.waits_for == "turn" for one in queue.items)) == (30, 30, 25)
    assert 0 < most < 20
