"""The soak's account: what is missing, doubled or late in the ledger is found."""

from __future__ import annotations

from datetime import timedelta

from proactive_prefect.ledger.db import Ledger
from proactive_prefect.ledger.occurrences import apply
from proactive_prefect.ledger.outcomes import RunRef
from proactive_prefect.soak.account import Account
from proactive_prefect.soak.rules import HOOK, soak_rules
from proactive_prefect.soak.slo import Seen

from ..ledger.histories import LONG_AGO, NOON, a_run, story


async def ended(ledger: Ledger, run: RunRef) -> None:
    async with ledger.write() as session:
        facts = story(run, "SCHEDULED/Scheduled", "RUNNING/Running", "COMPLETED/Quiet")
        await apply(session, run, facts, log_since=LONG_AGO)


def every_due(minutes: int = 1) -> list[RunRef]:
    """A run for each due moment of the soak's rules in the minutes from noon on."""
    runs = []
    for rule, kind, seconds in (
        ("soak-heartbeat", "heartbeat", 10),
        ("soak-skill", "skill", 15),
        ("soak-cron", "cron", 60),
    ):
        for number in range(minutes * 60 // seconds):
            due = NOON + timedelta(seconds=number * seconds)
            runs.append(a_run(f"{rule}-{number}", rule_id=rule, kind=kind, due=due))
    return runs


async def test_a_whole_account(ledger: Ledger) -> None:
    """Every due moment and every accepted call has its run."""
    for run in every_due():
        await ended(ledger, run)
    first = NOON - timedelta(seconds=3)
    await ended(ledger, a_run("call", rule_id=HOOK, kind="webhook", due=first, cause="webhook", delivery_id="d1"))
    seen = Seen()
    account = Account(ledger, soak_rules(), NOON, NOON + timedelta(minutes=1), ["d1"])
    assert await account.open() == []
    await account.write(seen)
    assert (seen.expected, seen.outcomes, seen.without) == (11, {"quiet": 11}, [])
    assert (seen.doubled, seen.lost_calls, seen.undecided) == ([], [], 0)
    assert seen.lags == [1.0] * 11


async def test_what_is_wrong_is_found(ledger: Ledger) -> None:
    """A due moment without a run, one with two, a call that was lost, one that waits in stasis."""
    first, second, *rest = every_due()
    for run in rest:
        await ended(ledger, run)
    async with ledger.write() as session:
        await apply(session, second, story(second, "SCHEDULED/Scheduled", "PAUSED/Missed"), log_since=LONG_AGO)
    again = a_run("again", rule_id=rest[0].rule_id, due=rest[0].due)
    await ended(ledger, again)
    seen = Seen()
    account = Account(ledger, soak_rules(), NOON, NOON + timedelta(minutes=1), ["d1"])
    assert len(await account.open()) == 2
    await account.write(seen)
    assert seen.without == [f"soak-heartbeat due {first.due:%H:%M:%S}"]
    assert seen.lost_calls == ["delivery d1"]
    assert seen.doubled == [f"soak-heartbeat due {rest[0].due:%H:%M:%S}"]
    assert seen.undecided == 1
