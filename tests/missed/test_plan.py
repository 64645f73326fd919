"""What a round of the sweep finds in the ledger, and writes down there."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import select

from proactive_prefect.firing.gate import Hold, Run, Skip
from proactive_prefect.ledger.cursors import BEGAN, move
from proactive_prefect.ledger.db import Ledger
from proactive_prefect.ledger.log import read_events
from proactive_prefect.ledger.occurrences import apply
from proactive_prefect.ledger.tables import Occurrence
from proactive_prefect.ledger.versions import SeenRule, Status, note_rules
from proactive_prefect.ledger.why import why
from proactive_prefect.missed.plan import SWEPT, Plan, make_plan
from proactive_prefect.missed.queue import read_queue
from proactive_prefect.missed.record import abandoned_runs, held_by_rule, note_left_out, note_skips, stale_held
from proactive_prefect.rules.models import HeartbeatRule, to_snapshot
from proactive_prefect.settings import Settings
from tests.ledger.histories import LONG_AGO, NOON, a_run, story

HOUR = timedelta(hours=1)
NOW = NOON + timedelta(minutes=30)
HELD = ("SCHEDULED/Scheduled", "PAUSED/Missed")


async def see(
    ledger: Ledger,
    *,
    status: Status = "active",
    created: datetime = LONG_AGO,
    updated: datetime | None = None,
    looked: datetime | None = None,
    now: datetime = NOW,
    **keys: Any,
) -> None:
    """Note the hourly rule "disk" as it is now deployed."""
    action = {"type": "python", "call": "flows.actions:look"}
    rule = HeartbeatRule.model_validate({"id": "disk", "every": "1h", "action": action, **keys})
    seen = SeenRule("disk", "heartbeat", "d", to_snapshot(rule), status, created, updated or created)
    async with ledger.write() as session:
        await note_rules(session, [seen], now, log_since=LONG_AGO, looked=looked)


async def plan(ledger: Ledger, *, since: datetime = NOON - 10 * HOUR, now: datetime = NOW, limit: int = 100) -> Plan:
    """A round, where the account begins at `since`."""
    async with ledger.write() as session:
        await move(session, BEGAN, since)
    async with ledger.read() as session:
        return await make_plan(session, now, limit)


async def tell(ledger: Ledger, hours: int, *states: str) -> Occurrence:
    """A run that was due so many hours before noon came into these states."""
    ref = a_run(f"00000000-0000-0000-0000-{hours:012}", due=NOON - hours * HOUR)
    async with ledger.write() as session:
        return await apply(session, ref, story(ref, *states), log_since=LONG_AGO)


def found(plan: Plan) -> list[tuple[int, str]]:
    """How many hours before noon each gap was due, and what the gate says."""
    words = {Hold: "hold", Run: "run"}
    return [
        (
            round((NOON - gap.due) / HOUR),
            gap.decision.code if isinstance(gap.decision, Skip) else words[type(gap.decision)],
        )
        for gap in plan.gaps
    ]


async def test_nothing_is_called_missing_before_the_account_has_begun(ledger: Ledger) -> None:
    """A new ledger first learns what Prefect knows."""
    await see(ledger)
    async with ledger.read() as session:
        assert (await make_plan(session, NOW, 100)).is_empty


async def test_what_nobody_ran_is_held_and_what_has_an_outcome_is_not(ledger: Ledger) -> None:
    """Whatever that is: it ran, was skipped, or was missed and decided about."""
    await see(ledger)
    await tell(ledger, 3, "SCHEDULED/Scheduled", "RUNNING/Running", "COMPLETED/Completed")
    await tell(ledger, 2, "CANCELLED/Skipped")
    await tell(ledger, 1, *HELD, "CANCELLED/Cancelled")
    await tell(ledger, 0, *HELD)
    assert found(await plan(ledger, since=NOON - 5 * HOUR)) == [(5, "hold"), (4, "hold")]


async def test_runs_that_wait_past_their_grace_are_late(ledger: Ledger) -> None:
    """Not those that have begun, or were approved."""
    await see(ledger)
    late = await tell(ledger, 2, "SCHEDULED/Scheduled", "SCHEDULED/Late")
    await tell(ledger, 1, *HELD, "SCHEDULED/Resuming")
    await tell(ledger, 0, "SCHEDULED/Scheduled", "RUNNING/Running", "SCHEDULED/AwaitingRetry")
    found_now = await plan(ledger, since=NOON - 2 * HOUR)
    assert (found_now.gaps, [one.run_id for one in found_now.late]) == ((), [late.run_id])
    assert (await plan(ledger, since=NOON - 2 * HOUR, now=NOON - 2 * HOUR + timedelta(seconds=59))).late == ()


async def test_each_way_to_treat_missed_runs(ledger: Ledger) -> None:
    """ask holds, run runs, latest runs the last one, skip skips; too old ones are skipped by all but run."""
    for number, (keys, wanted) in enumerate(
        [
            ({"on_missed": "run"}, [(2, "run"), (1, "run"), (0, "run")]),
            ({"on_missed": "latest"}, [(2, "stale"), (1, "stale"), (0, "run")]),
            ({"on_missed": "skip"}, [(2, "stale"), (1, "stale"), (0, "stale")]),
            ({"stale_after": "2h"}, [(2, "stale"), (1, "hold"), (0, "hold")]),
            ({"on_missed": "run", "stale_after": "1h"}, [(2, "stale"), (1, "stale"), (0, "run")]),
            ({}, [(2, "hold"), (1, "hold"), (0, "hold")]),
        ]
    ):
        edited = NOON - 3 * HOUR + timedelta(minutes=number)
        await see(ledger, updated=edited, created=NOON - 4 * HOUR, **keys)
        assert found(await plan(ledger, since=edited)) == wanted, keys


async def test_conditions_max_runs_and_cooldown_skip_what_was_not_run(ledger: Ledger) -> None:
    """It is skipped for the reason for which it would have been skipped in time, not missed."""
    await see(ledger, conditions={"active_hours": {"start": "10:00", "end": "12:00"}})
    assert found(await plan(ledger, since=NOON - 3 * HOUR)) == [
        (3, "outside_active_hours"),
        (2, "hold"),
        (1, "hold"),
        (0, "outside_active_hours"),
    ]
    await tell(ledger, 2, "SCHEDULED/Scheduled", "RUNNING/Running", "COMPLETED/Completed")
    await see(ledger, updated=NOON - 150 * timedelta(minutes=1), cooldown="90m")
    assert found(await plan(ledger, since=NOON - 3 * HOUR))[1:] == [(1, "cooldown"), (0, "hold")]
    await see(ledger, updated=NOON - 149 * timedelta(minutes=1), max_runs=1)
    assert found(await plan(ledger, since=NOON - 3 * HOUR))[1:] == [(1, "max_runs"), (0, "max_runs")]


async def test_a_skip_without_a_run_is_in_the_account_once(ledger: Ledger) -> None:
    """With its reason, and one event; the next round finds nothing."""
    await see(ledger, on_missed="skip")
    for _ in range(2):
        await note_skips(ledger, (await plan(ledger, since=NOON - HOUR)).gaps, NOW)
    async with ledger.read() as session:
        there = (await session.scalars(select(Occurrence))).all()
        events = [event for event in await read_events(session) if event.event_type == "heartbeat_skipped"]
        answer = await why(session, "disk", NOON, NOW)
    assert [(one.outcome, one.reason.partition(":")[0]) for one in there] == [("skipped", "stale")] * 2
    assert [event.payload["code"] for event in events] == ["stale", "stale"]
    assert answer.verdict == "skipped"
    assert (await plan(ledger, since=NOON - HOUR)).is_empty


async def test_a_run_that_turns_up_after_all_outweighs_the_skip(ledger: Ledger) -> None:
    """What ran, ran."""
    await see(ledger, on_missed="skip")
    await note_skips(ledger, (await plan(ledger, since=NOON)).gaps, NOW)
    there = await tell(ledger, 0, "SCHEDULED/Scheduled", "RUNNING/Running", "COMPLETED/Completed")
    assert there.outcome == "completed"


async def test_what_is_left_out_is_said_once_with_how_many_and_since_when(ledger: Ledger) -> None:
    """In the log, in the queue, and to who asks why."""
    await see(ledger, lookback="4h")
    for _ in range(2):
        await note_left_out(ledger, (await plan(ledger)).left_out, NOW)
    async with ledger.read() as session:
        [event] = [event for event in await read_events(session) if event.event_type == "heartbeat_left_out"]
        answer = await why(session, "disk", NOON - 6 * HOUR, NOW)
    assert (event.payload["count"], event.payload["since"]) == (7, (NOON - 10 * HOUR).isoformat())
    assert "left out with 6 others" in answer.text


async def test_a_rule_paused_and_resumed_while_nobody_looked_was_not_missed(ledger: Ledger) -> None:
    """It is as it was before, but was touched in between: what was due then is not claimed; later it is."""
    await see(ledger, now=NOON - 9 * HOUR)
    looked, resumed = NOON - 8 * HOUR - timedelta(minutes=30), NOON - 3 * HOUR - timedelta(minutes=30)
    for _ in range(2):
        await see(ledger, updated=resumed, looked=looked)
        assert [hours for hours, _ in found(await plan(ledger))] == [10, 9, 3, 2, 1, 0]


async def test_a_rule_first_seen_long_after_its_last_change_counts_from_that(ledger: Ledger) -> None:
    """As one that was applied, and changed, before there was a gateway."""
    await see(ledger, created=NOON - 9 * HOUR, updated=NOON - 2 * HOUR - timedelta(minutes=30))
    assert [hours for hours, _ in found(await plan(ledger))] == [2, 1, 0]
    async with ledger.read() as session:
        [event] = await read_events(session)
    assert (event.event_type, event.payload["rule_status"]) == ("heartbeat_job_created", "active")


async def test_a_rule_that_is_gone_leaves_no_open_ends(ledger: Ledger) -> None:
    """What it missed before it was deleted can not be run any more: it is skipped."""
    await see(ledger, now=NOON - 9 * HOUR)
    async with ledger.write() as session:
        await note_rules(session, [], NOON - HOUR + timedelta(minutes=5), log_since=LONG_AGO)
    assert found(await plan(ledger, since=NOON - 3 * HOUR)) == [(3, "disabled"), (2, "disabled"), (1, "disabled")]


@pytest.mark.parametrize(("on_missed", "wanted"), [("run", "disabled"), ("latest", "disabled"), ("ask", "hold")])
async def test_a_rule_that_is_switched_off_runs_nothing_by_itself(ledger: Ledger, on_missed: str, wanted: str) -> None:
    """What it missed before is skipped; a person may still decide about what waits for one."""
    await see(ledger, now=NOON - 9 * HOUR, on_missed=on_missed)
    held = await tell(ledger, 2, *HELD)
    off = NOON - HOUR + timedelta(minutes=5)
    async with ledger.read() as session:
        assert await held_by_rule(session) == ([] if on_missed == "ask" else [held.id])
    await see(ledger, status="disabled", updated=off, now=off, on_missed=on_missed, enabled=False)
    assert found(await plan(ledger, since=NOON - HOUR, now=NOON - HOUR / 2)) == [(1, wanted)]
    async with ledger.read() as session:
        assert await held_by_rule(session) == []
        queue = await read_queue(session, Settings(), NOW)
    assert [one.waits_for for one in queue.items] == ["decision"]


async def test_a_shorter_grace_loses_nothing_that_was_due_under_the_longer_one(ledger: Ledger) -> None:
    """What was due before the edit is judged when its own grace is over, hours after the last round began."""
    await see(ledger, grace="2h", now=NOON - 9 * HOUR)
    edited = NOON + timedelta(minutes=5)
    await see(ledger, grace="60s", updated=edited, now=edited)
    for minutes, wanted in ((10, []), (62, [1, -1]), (125, [0, -1, -2])):
        there = await plan(ledger, since=NOON - HOUR, now=NOON + timedelta(minutes=minutes))
        assert [hours for hours, _ in found(there)] == wanted
        async with ledger.write() as session:
            await move(session, SWEPT, NOON + timedelta(minutes=minutes))


async def test_a_round_goes_on_where_the_last_one_ended(ledger: Ledger) -> None:
    """What is older was accounted for by it."""
    await see(ledger)
    async with ledger.write() as session:
        await move(session, SWEPT, NOON - HOUR + timedelta(minutes=30))
    assert found(await plan(ledger)) == [(0, "hold")]


async def test_held_ones_go_by_their_rule_or_get_stale(ledger: Ledger) -> None:
    """By the rule as it was when they were due."""
    await see(ledger, on_missed="run", created=NOON - 9 * HOUR)
    by_rule = await tell(ledger, 3, *HELD)
    await see(ledger, on_missed="ask", stale_after="100m", updated=NOON - 150 * timedelta(minutes=1))
    stale, fresh = await tell(ledger, 2, *HELD), await tell(ledger, 1, *HELD)
    async with ledger.read() as session:
        assert await held_by_rule(session) == [by_rule.id]
        assert [run_id for run_id, _ in await stale_held(session, NOW)] == [stale.run_id]
        assert {run_id for run_id, _ in await stale_held(session, NOW + HOUR)} == {stale.run_id, fresh.run_id}


async def test_what_was_claimed_and_never_begun_is_late_and_what_never_ended_is_abandoned(ledger: Ledger) -> None:
    """A while after; within that, its worker may only be slow."""
    await see(ledger, timeout="10m", retries=1, retry_delay="5m")
    claimed = await tell(ledger, 2, "SCHEDULED/Scheduled", "PENDING/Pending")
    began = await tell(ledger, 1, "SCHEDULED/Scheduled", "RUNNING/Running")
    for minutes, late, abandoned in ((14, False, False), (16, True, False), (99, True, False), (101, True, True)):
        now = NOON - 2 * HOUR + timedelta(minutes=minutes)
        there = await plan(ledger, since=NOON - 2 * HOUR, now=now)
        assert [one.run_id for one in there.late] == ([claimed.run_id] if late else []), minutes
        assert there.abandoned == ((began.run_id,) if abandoned else ()), minutes


async def test_what_ended_unknown_lately_may_be_run_again_while_its_rule_rests(ledger: Ledger) -> None:
    """Not long after; and not while another run of the rule is at work."""
    crashed = await tell(ledger, 1, "SCHEDULED/Scheduled", "RUNNING/Running", "CRASHED/Crashed")
    await tell(ledger, 3, "SCHEDULED/Scheduled", "RUNNING/Running", "COMPLETED/Completed")
    async with ledger.read() as session:
        assert await abandoned_runs(session, NOON) == [crashed.run_id]
        assert await abandoned_runs(session, NOON + timedelta(minutes=1)) == []
    await tell(ledger, 0, "SCHEDULED/Scheduled", "RUNNING/Running")
    async with ledger.read() as session:
        assert await abandoned_runs(session, NOON) == []
