"""`why`: one answer for every time, also for those at which nothing happened."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from proactive_prefect.errors import InputError, UnknownRule
from proactive_prefect.ledger.cursors import BEGAN, move
from proactive_prefect.ledger.db import Ledger
from proactive_prefect.ledger.occurrences import apply, expect, settle
from proactive_prefect.ledger.resolutions import resolve
from proactive_prefect.ledger.tables import Occurrence
from proactive_prefect.ledger.versions import SeenRule, Status, note_rules
from proactive_prefect.ledger.why import Why, why
from proactive_prefect.rules.models import HeartbeatRule, WebhookRule, to_snapshot

from .histories import LONG_AGO, NOON, a_run, story

NOW = NOON + timedelta(days=1)
HOUR = timedelta(hours=1)
RAN = ("SCHEDULED/Scheduled", "PENDING/Pending", "RUNNING/Running", "COMPLETED/Completed")


def seen(status: Status = "active", *, at: datetime, rule: HeartbeatRule | WebhookRule | None = None) -> SeenRule:
    """The rule `disk`, due each hour, as Prefect had it at a time."""
    action = {"type": "python", "call": "a:b"}
    rule = rule or HeartbeatRule.model_validate({"id": "disk", "every": "1h", "action": action})
    return SeenRule(rule.id, rule.kind, "deployment", to_snapshot(rule), status, at, at)


async def note(ledger: Ledger, *rules: SeenRule, at: datetime) -> None:
    """What the rules were at a time."""
    async with ledger.write() as session:
        await note_rules(session, rules, at, log_since=LONG_AGO)


async def ask(ledger: Ledger, at: datetime, rule_id: str = "disk") -> Why:
    """Why, as of a day after."""
    async with ledger.read() as session:
        return await why(session, rule_id, at, NOW)


async def test_a_run_is_found_by_its_minute_with_all_about_it(ledger: Ledger) -> None:
    """Outcome, times, run and steps; a run now in the same minute is named beside what was due."""
    for ref in (a_run("now", due=NOON + timedelta(seconds=1), cause="manual"), a_run("due")):
        async with ledger.write() as session:
            await apply(session, ref, story(ref, *RAN, messages=["", "", "", "all well"]), log_since=LONG_AGO)
    answer = await ask(ledger, NOON)
    assert (answer.verdict, answer.due, answer.cause, answer.reason) == ("completed", NOON, "schedule", "all well")
    assert answer.run is not None
    assert answer.run.run_id == "due"
    assert answer.also == [NOON + timedelta(seconds=1)]
    assert [step.event_type for step in answer.steps] == [
        "heartbeat_scheduled",
        "heartbeat_started",
        "heartbeat_completed",
    ]
    assert "ran 2026-03-01 12:00:02 UTC to 2026-03-01 12:00:03 UTC" in answer.text
    assert (await ask(ledger, NOON + timedelta(seconds=1))).run.run_id == "now"  # type: ignore[union-attr]


async def test_a_decision_is_part_of_the_answer(ledger: Ledger) -> None:
    """Who resolved it, when, and from where a rescheduled one comes."""
    ref = a_run()
    async with ledger.write() as session:
        old = await apply(session, ref, story(ref, "SCHEDULED/Scheduled", "PAUSED/Missed"), log_since=LONG_AGO)
    assert "waits for somebody" in (await ask(ledger, NOON)).text
    async with ledger.write() as session:
        old = await session.get_one(Occurrence, old.id)
        await resolve(session, old, "reschedule", by="ann", via="page", at=NOON + HOUR, target=NOON + 3 * HOUR)
        await expect(
            session,
            rule_id="disk",
            kind="heartbeat",
            owner_id="local",
            due=NOON + 3 * HOUR,
            cause="manual",
            origin=old.key,
        )
        await settle(session, old)
    answer = await ask(ledger, NOON)
    assert (answer.verdict, answer.reason) == ("rescheduled", "to 2026-03-01 15:00:00 UTC")
    assert answer.resolution is not None
    assert (answer.resolution.by, answer.resolution.via, answer.resolution.target) == ("ann", "page", NOON + 3 * HOUR)
    assert (await ask(ledger, NOON + 3 * HOUR)).rescheduled_from == NOON


async def test_a_time_that_no_occurrence_belongs_to(ledger: Ledger) -> None:
    """Not due, before the rule was there, paused, switched off or deleted then, still to come: each says so."""
    await note(ledger, seen(at=NOON), at=NOON)
    await note(ledger, seen("paused", at=NOON + 5 * HOUR), at=NOON + 6 * HOUR)
    await note(ledger, seen("disabled", at=NOON + 8 * HOUR), at=NOON + 9 * HOUR)
    await note(ledger, at=NOON + 10 * HOUR)
    verdicts = {
        NOON - HOUR: "before_created",
        NOON + timedelta(minutes=30): "not_due",
        NOON + 6 * HOUR: "paused",
        NOON + 9 * HOUR: "disabled",
        NOON + 11 * HOUR: "deleted",
    }
    assert {at: (await ask(ledger, at)).verdict for at in verdicts} == verdicts
    answer = await ask(ledger, NOON + timedelta(minutes=30))
    assert (answer.previous_due, answer.next_due) == (NOON, NOON + HOUR)
    await note(ledger, seen(at=NOON + 12 * HOUR), at=NOON + 12 * HOUR)
    answer = await ask(ledger, NOW + HOUR)
    assert (answer.verdict, answer.due, answer.next_due) == ("upcoming", NOW + HOUR, NOW + 2 * HOUR)
    answer = await ask(ledger, NOW + HOUR - timedelta(minutes=1))
    assert (answer.verdict, answer.next_due) == ("not_due", NOW + HOUR)


async def test_what_its_conditions_will_rule_out_is_told_beforehand(ledger: Ledger) -> None:
    """A time to come at which the rule is due, but may not run."""
    action, hours = {"type": "python", "call": "a:b"}, {"active_hours": {"start": "00:00", "end": "01:00"}}
    made = HeartbeatRule.model_validate({"id": "disk", "every": "1h", "action": action, "conditions": hours})
    await note(ledger, seen(at=NOON, rule=made), at=NOON)
    answer = await ask(ledger, NOW + HOUR)
    assert answer.verdict == "upcoming"
    assert "and will be skipped: outside_active_hours: " in answer.text


async def test_a_due_time_without_a_run_is_told_from_one_before_the_account_began(ledger: Ledger) -> None:
    """What nobody has a record of is never called "not due"."""
    await note(ledger, seen(at=NOON - 10 * HOUR), at=NOON)
    assert "has not begun" in (await ask(ledger, NOON - HOUR)).text
    async with ledger.write() as session:
        await move(session, BEGAN, NOON)
    assert "begins 2026-03-01 12:00:00 UTC" in (await ask(ledger, NOON - HOUR)).text
    assert "Prefect has no run for it" in (await ask(ledger, NOON + HOUR)).text


async def test_a_rule_that_cannot_be_read_any_more_is_told_of_all_the_same(ledger: Ledger) -> None:
    """Another version of the program wrote it down: whether it was due is not known, and that is the answer."""
    newer = replace(seen(at=NOON), snapshot='{"kind": "heartbeat", "id": "disk", "action": {"type": "telepathy"}}')
    await note(ledger, newer, at=NOON)
    await note(ledger, replace(newer, status="paused", updated=NOON + 2 * HOUR), at=NOON + 2 * HOUR)
    answer = await ask(ledger, NOON + HOUR)
    assert answer.verdict == "unrecorded"
    assert "as it was since 2026-03-01 12:00:00 UTC cannot be read" in answer.text
    assert (await ask(ledger, NOON + 3 * HOUR)).verdict == "paused"


async def test_a_webhook_that_nobody_called(ledger: Ledger) -> None:
    """A webhook is never due: no call came."""
    rule = WebhookRule.model_validate({"id": "hook", "action": {"type": "python", "call": "a:b"}})
    await note(ledger, seen(at=NOON, rule=rule), at=NOON)
    assert (await ask(ledger, NOON + HOUR, "hook")).verdict == "no_call"


async def test_a_rule_that_nobody_ever_saw_is_an_error(ledger: Ledger) -> None:
    """It is not an answer that looks like one."""
    with pytest.raises(UnknownRule, match="'disc'"):
        await ask(ledger, NOON, "disc")


@pytest.mark.parametrize("year", [1, 1970, 3000, 9999])
async def test_a_time_out_of_all_calendars_is_refused(ledger: Ledger, year: int) -> None:
    """It is the question that is wrong."""
    with pytest.raises(InputError, match=str(year)):
        await ask(ledger, datetime(year, 1, 1, tzinfo=UTC))


async def test_a_rule_that_is_seen_unchanged_is_noted_once(ledger: Ledger) -> None:
    """Looking again and again adds no version and no event; what is older than the version before comes after it."""
    for _ in range(3):
        await note(ledger, seen(at=NOON), at=NOON + HOUR)
    await note(ledger, seen("paused", at=NOON - HOUR), at=NOON + 2 * HOUR)
    assert (await ask(ledger, NOON + HOUR)).verdict != "paused"
    assert (await ask(ledger, datetime(2026, 3, 1, 15, tzinfo=UTC))).verdict == "paused"
