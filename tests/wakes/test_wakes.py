"""Wakes in the ledger: asked for once, by whom they should be, and kept until a run began with them."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import update

from proactive_prefect.ledger.db import Ledger
from proactive_prefect.ledger.log import read_events
from proactive_prefect.ledger.occurrences import apply, known_runs, ref_of
from proactive_prefect.ledger.outcomes import RunRef
from proactive_prefect.ledger.tables import Wake
from proactive_prefect.ledger.versions import SeenRule, note_rules
from proactive_prefect.ledger.wakes import ask, waiting
from proactive_prefect.rules.models import CronRule, HeartbeatRule, RuleBase, to_snapshot
from proactive_prefect.wakes.last import last_heartbeats

from ..ledger.histories import LONG_AGO, a_run, story

ACTION = {"type": "command", "argv": ["true"]}
NOW = datetime.now(UTC).replace(microsecond=0)


def heartbeat(rule_id: str, **keys: Any) -> HeartbeatRule:
    return HeartbeatRule.model_validate({"id": rule_id, "every": "5m", "action": ACTION, **keys})


def cron(**keys: Any) -> CronRule:
    return CronRule.model_validate({"id": "report", "cron": "* * * * *", "action": ACTION, **keys})


async def deploy(ledger: Ledger, *rules: RuleBase) -> None:
    since = NOW - timedelta(days=1)
    seen = [
        SeenRule(
            rule.id,
            json.loads(to_snapshot(rule))["kind"],
            f"deployment-{rule.id}",
            to_snapshot(rule),
            "active" if rule.enabled else "disabled",
            since,
            since,
        )
        for rule in rules
    ]
    async with ledger.write() as session:
        await note_rules(session, seen, NOW, log_since=LONG_AGO)


async def waits(ledger: Ledger) -> list[tuple[str, str, str]]:
    async with ledger.read() as session:
        return [(wake.rule_id, wake.mode, wake.reason) for wake, _ in await waiting(session)]


async def end(ledger: Ledger, run: RunRef, state: str = "COMPLETED/Completed") -> None:
    facts = story(run, "SCHEDULED/Scheduled", "RUNNING/Running", state, messages=["", "", "all well"])
    async with ledger.write() as session:
        await apply(session, run, facts, log_since=LONG_AGO)


def report_run() -> RunRef:
    return a_run("report-run", rule_id="report", kind="cron", due=NOW - timedelta(minutes=1))


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({"session": "s1"}, {("mine", "next"), ("watch", "next")}),
        ({"session": "s1", "wake_heartbeat": "off"}, set()),
        ({"session": "s1", "wake_heartbeat": "now"}, {("mine", "now"), ("watch", "now")}),
        ({"wake_heartbeat": "next"}, {("mine", "next"), ("other", "next"), ("watch", "next")}),
        ({}, set()),
    ],
)
async def test_a_cron_rule_of_a_session_wakes_the_next_heartbeat_when_it_ends(
    ledger: Ledger, keys: dict[str, Any], expected: set[tuple[str, str]]
) -> None:
    """By default when it is bound to a session, as it says where it says so, and not at all with off."""
    heartbeats = [heartbeat("mine", session="s1"), heartbeat("other", session="s2"), heartbeat("watch")]
    await deploy(ledger, *heartbeats, heartbeat("asleep", enabled=False), cron(**keys))
    await end(ledger, report_run())
    await end(ledger, report_run())  # told again, as after a reconnect
    found = await waits(ledger)
    assert {(rule, mode) for rule, mode, _ in found} == expected
    assert len(found) == len(expected)
    assert {reason for _, _, reason in found} <= {"cron report ended: completed: all well"}


async def test_a_failed_run_wakes_too_and_a_skipped_one_does_not(ledger: Ledger) -> None:
    """A failure is news for the session; what did not run has no end."""
    await deploy(ledger, heartbeat("watch"), cron(session="s1"))
    await end(ledger, a_run("skipped", rule_id="report", kind="cron", due=NOW), "CANCELLED/Skipped")
    assert await waits(ledger) == []
    await end(ledger, report_run(), "FAILED/Failed")
    assert [reason for *_, reason in await waits(ledger)] == ["cron report ended: failed: all well"]


async def test_what_ended_long_ago_wakes_nobody(ledger: Ledger) -> None:
    """A ledger that catches up with yesterday does not wake today's heartbeats for it."""
    await deploy(ledger, heartbeat("watch"), cron(session="s1"))
    await end(ledger, a_run("old", rule_id="report", kind="cron", due=NOW - timedelta(hours=5)))
    assert await waits(ledger) == []


async def test_a_wake_is_asked_for_once_by_its_key_and_logged(ledger: Ledger) -> None:
    """The same key again changes nothing; the log says who woke whom, and why."""
    await deploy(ledger, heartbeat("watch"), heartbeat("other"))
    for _ in range(2):
        async with ledger.write() as session:
            woken = await ask(session, key="k", mode="next", reason="look\nat it", by="operator", rule_id="watch")
        assert [wake.rule_id for wake in woken] == ["watch"]
    assert await waits(ledger) == [("watch", "next", "look at it")]
    async with ledger.read() as session:
        [event] = [one for one in await read_events(session) if one.event_type == "heartbeat_woken"]
    assert (event.source_ref, event.status) == ("watch", "next")
    assert event.payload == {"reason": "look at it", "by": "operator"}


async def test_last_tells_the_latest_of_each_heartbeat_and_what_waits(ledger: Ledger) -> None:
    """With its outcome, why it was woken, and what will wake it next."""
    await deploy(ledger, heartbeat("disk"), heartbeat("mine", session="s1"), cron())
    first = a_run("one", due=NOW - timedelta(minutes=9))
    await end(ledger, first)
    await end(ledger, a_run("two", due=NOW - timedelta(minutes=4)), "COMPLETED/Quiet")
    async with ledger.write() as session:
        await ask(session, key="a", mode="next", reason="because", by="operator", rule_id="disk")
        await session.execute(update(Wake).values(run_id="two", delivered_at=NOW))
        await ask(session, key="b", mode="next", reason="soon", by="operator", session_id="s1")
    async with ledger.read() as session:
        found = await last_heartbeats(session)
        of_session = await last_heartbeats(session, session_id="s1")
    assert found.last is not None
    assert (found.last.rule_id, found.last.status, found.last.wakes) == ("disk", "quiet", ["because"])
    assert {(one.rule_id, one.reason) for one in found.waiting} == {("disk", "soon"), ("mine", "soon")}
    assert of_session.last is None
    assert [one.rule_id for one in of_session.waiting] == ["mine"]


async def test_events_of_a_session_name_it(ledger: Ledger) -> None:
    """Every event of a run's life has the session of its rule, also those that are told by the run's id alone."""
    run = replace(report_run(), session_id="s1")
    scheduled, started, completed = story(run, "SCHEDULED/Scheduled", "RUNNING/Running", "COMPLETED/Completed")
    async with ledger.write() as session:
        await apply(session, run, [scheduled], log_since=LONG_AGO)
    async with ledger.read() as session:
        [(known, occurrence)] = (await known_runs(session, [run.run_id])).values()
    async with ledger.write() as session:
        await apply(session, ref_of(occurrence, known), [started, completed], log_since=LONG_AGO)
    async with ledger.read() as session:
        events = await read_events(session)
    assert [one.session_id for one in events] == ["s1"] * 3
