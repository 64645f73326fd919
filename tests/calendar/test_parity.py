"""The projection equals the calendar computed from nothing, whatever happened and however it was heard of."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from proactive_prefect.calendar.calendar import Calendar
from proactive_prefect.calendar.entries import CalendarEvents
from proactive_prefect.calendar.parity import first_difference, recompute
from proactive_prefect.calendar.projection import Projection
from proactive_prefect.ledger.db import Ledger, open_ledger
from proactive_prefect.ledger.occurrences import apply, apply_deletion
from proactive_prefect.settings import Settings
from tests.ledger.histories import LONG_AGO, NOON, histories, shuffled

from .rulesets import (
    DAILY,
    DAY,
    HOOK,
    HOUR,
    MIDNIGHT,
    MINUTE,
    MINUTELY,
    RAN,
    asked,
    note,
    run_of,
    seen,
    tell,
)

RULES: list[dict[str, Any]] = [
    {**DAILY, "timezone": "Europe/Berlin"},
    MINUTELY,
    HOOK,
    {"kind": "cron", "id": "often", "cron": "*/10 8-18 * * *", "timezone": "America/New_York"},
    {"kind": "heartbeat", "id": "slow", "every": "7h", "splay": "10m", "start_at": "2026-03-01T06:00:00Z"},
    {"kind": "skill", "id": "once", "skill": "s", "schedule": {"type": "once", "at": "2026-03-02T12:00:00Z"}},
    {"kind": "cron", "id": "ends", "cron": "30 4 * * *", "end_at": "2026-03-03T00:00:00Z"},
]
WEEK = asked(MIDNIGHT - 2 * DAY, MIDNIGHT + 5 * DAY)


async def equal(ledger: Ledger, calendar: Projection, now: Any = NOON) -> CalendarEvents:
    """The projection's answer, which is compared with the recomputation's."""
    given = await calendar.events(WEEK, now)
    async with ledger.read() as session:
        singles, folded = await recompute(session, WEEK, now)
    assert first_difference(given.events, singles) is None
    assert first_difference(given.always_running, folded) is None
    assert ([one.event_id for one in given.events], [one.event_id for one in given.always_running]) == (
        [one.event_id for one in singles],
        [one.event_id for one in folded],
    )
    return given


@st.composite
def steps(draw: st.DrawFn) -> list[Any]:
    """What happens, one after another: runs of rules as they are told of, deletions, changes of rules, looks."""
    told: list[Any] = []
    for number in range(draw(st.integers(1, 6))):
        rule = draw(st.sampled_from(RULES))
        due = MIDNIGHT + draw(st.integers(-2 * 1440, 2 * 1440)) * MINUTE
        delivery = {"delivery_id": f"d{number}"} if rule is HOOK else {}
        ref = run_of(rule, due, f"run-{number}", **delivery)
        facts = draw(histories(ref))
        told += [("state", ref, fact) for fact in draw(shuffled(facts))]
        if draw(st.integers(0, 4)) == 0:
            told.append(("deleted", ref, None))
    for _ in range(draw(st.integers(0, 3))):
        what = draw(st.sampled_from(["active", "paused", "disabled", "deleted", "moved"]))
        told.append((what, draw(st.sampled_from(RULES)), None))
    told += [("look", None, None)] * draw(st.integers(0, 5))
    return draw(st.permutations(told))


async def walk(ledger: Ledger, happened: Sequence[tuple[str, Any, Any]]) -> None:
    """Let it happen, and compare at each look and at the end."""
    now = {rule["id"]: seen(rule) for rule in RULES}
    await note(ledger, *now.values())
    calendar, changed = Projection(ledger), 0
    for what, about, fact in happened:
        match what:
            case "look":
                await equal(ledger, calendar)
            case "state":
                async with ledger.write() as session:
                    await apply(session, about, [fact], log_since=LONG_AGO)
            case "deleted" if fact is None and hasattr(about, "run_id"):
                async with ledger.write() as session:
                    await apply_deletion(session, about.run_id, NOON, log_since=LONG_AGO)
            case _:
                changed += 1
                when = NOON + changed * timedelta(seconds=1)
                if what == "deleted":
                    now.pop(about["id"], None)
                elif what == "moved" and about["kind"] == "cron":
                    now[about["id"]] = seen({**about, "cron": "15 */2 * * *"}, at=when)
                elif what != "moved":
                    now[about["id"]] = seen(about, what, at=when)  # type: ignore[arg-type]
                await note(ledger, *now.values(), at=when)
    await equal(ledger, calendar)
    await equal(ledger, calendar, NOON + 9 * HOUR)
    await equal(ledger, calendar, NOON + 2 * DAY)


# Without shrinking, which takes minutes with a database in the loop: what fails is short anyway.
@settings(
    max_examples=10,
    deadline=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(happened=steps())
def test_the_projection_equals_a_recomputation_after_any_history(
    happened: list[Any], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Runs told of late, twice and in any order, runs and rules deleted, paused, moved: at each look they are equal."""

    async def one() -> None:
        async with open_ledger(Settings(home=tmp_path_factory.mktemp("ledger"))) as ledger:
            await walk(ledger, happened)

    asyncio.run(one())


async def test_they_are_equal_on_both_databases(ledger: Ledger) -> None:
    """A fixed long history, days folded and not, on SQLite and on PostgreSQL."""
    rng, happened = random.Random(7), []
    for number in range(25):
        rule = rng.choice(RULES)
        due = NOON + rng.randrange(-900, 300) * MINUTE
        ref = run_of(rule, due, f"run-{number}", **({"delivery_id": f"d{number}"} if rule is HOOK else {}))
        happened.append((ref, RAN[: rng.randrange(1, 5)]))
    await note(ledger, *(seen(rule) for rule in RULES))
    for minute in range(1, 30):
        await tell(ledger, run_of(MINUTELY, NOON - minute * MINUTE), *RAN)
    calendar = Projection(ledger)
    for number, (ref, states) in enumerate(happened):
        await tell(ledger, ref, *states)
        if number % 6 == 0:
            await equal(ledger, calendar)
    found = await equal(ledger, calendar)
    assert {one.source_ref for one in found.always_running} >= {"pulse", "often"}
    assert {one.source_ref for one in found.events} >= {"report", "slow", "once", "ends"}


async def test_shadow_mode_finds_a_difference_and_mends_it(ledger: Ledger) -> None:
    """A change that went by the account's numbers: it is counted, and the next answer is right."""
    from sqlalchemy import update
    from sqlmodel import col

    from proactive_prefect.ledger.tables import Occurrence

    await note(ledger, seen(DAILY))
    await tell(ledger, run_of(DAILY, MIDNIGHT + 9 * HOUR), *RAN)
    calendar = Calendar(ledger, Settings(calendar_shadow=1))
    assert await calendar.check(WEEK, await calendar.projection.events(WEEK, NOON)) is True
    async with ledger.write() as session:
        await session.execute(update(Occurrence).where(col(Occurrence.rule_id) == "report").values(outcome="failed"))
    wrong = await calendar.projection.events(WEEK, NOON)
    assert [one.status for one in wrong.events if one.scheduled_at_utc < NOON] == ["completed"]
    assert await calendar.check(WEEK, wrong) is False
    right = await calendar.projection.events(WEEK, NOON)
    assert [one.status for one in right.events if one.scheduled_at_utc < NOON] == ["failed"]
    assert await calendar.check(WEEK, right) is True
    assert (calendar.state()["shadow_compared"], calendar.state()["shadow_differences"]) == (3, 1)


async def test_without_the_projection_the_answer_is_the_same(ledger: Ledger) -> None:
    """PROACTIVE_EVENT_PROJECTION_ENABLED=false reads everything anew, keeps nothing and shows the same."""
    await note(ledger, *(seen(rule) for rule in RULES))
    await tell(ledger, run_of(DAILY, MIDNIGHT + 9 * HOUR), *RAN)
    off = Calendar(ledger, Settings(event_projection_enabled=False))
    on = Calendar(ledger, Settings())
    kept, anew = await on.events(WEEK), await off.events(WEEK)
    for found in (kept, anew):
        found.at = NOON
    assert anew == kept
    assert (on.state()["rebuilds"], off.state()["rebuilds"]) == (1, 0)
