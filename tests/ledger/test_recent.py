"""The latest occurrences of each rule."""

from __future__ import annotations

from datetime import timedelta

from proactive_prefect.ledger.db import Ledger
from proactive_prefect.ledger.occurrences import apply
from proactive_prefect.ledger.recent import last_occurrences
from proactive_prefect.rules.models import HeartbeatRule

from .histories import LONG_AGO, NOON, a_run, story
from .test_why import RAN, note, seen

HOUR = timedelta(hours=1)


async def test_each_rule_has_its_latest_few_the_oldest_first(ledger: Ledger) -> None:
    """Of many and of few; what is only scheduled has not become anything yet, what runs has begun to."""
    action = {"type": "python", "call": "a:b"}
    rules = [HeartbeatRule.model_validate({"id": name, "every": "1h", "action": action}) for name in ("a", "b", "c")]
    await note(ledger, *(seen(at=NOON, rule=rule) for rule in rules), at=NOON)
    async with ledger.write() as session:
        for name, count in (("a", 7), ("b", 2)):
            for hour in range(count):
                run = a_run(f"{name}{hour}", rule_id=name, due=NOON + hour * HOUR)
                await apply(session, run, story(run, *RAN), log_since=LONG_AGO)
        for number, states in ((50, ("SCHEDULED/Scheduled",)), (8, RAN[:3])):
            run = a_run(f"a{number}", rule_id="a", due=NOON + number * HOUR)
            await apply(session, run, story(run, *states), log_since=LONG_AGO)
    async with ledger.read() as session:
        found = await last_occurrences(session, ["a", "b", "c", "nobody"], 3)
    assert {name: [one.run_id for one in last] for name, last in found.items()} == {
        "a": ["a5", "a6", "a8"],
        "b": ["b0", "b1"],
    }
    assert [one.running for one in found["a"]] == [False, False, True]
