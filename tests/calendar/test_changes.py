"""Changes of the calendar are shown before they are done, and done as they were shown or not at all."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from prefect.settings import PREFECT_API_URL, temporary_settings
from pydantic import TypeAdapter

from proactive_prefect.calendar.changes import Change, Stale
from proactive_prefect.calendar.confirm import UnknownChange, carry_left_behind, confirm, preview
from proactive_prefect.calendar.ids import UnknownEntry, entry_id
from proactive_prefect.errors import InputError, PrefectUnreachable, UnknownRule
from proactive_prefect.firing.gate import Facts, Run, decide
from proactive_prefect.firing.gate import Occurrence as Moment
from proactive_prefect.ledger.db import Ledger
from proactive_prefect.ledger.log import last_events
from proactive_prefect.ledger.tables import CalendarChange
from proactive_prefect.prefect_api import PrefectApi, connect
from proactive_prefect.prefect_api.client import Refused
from proactive_prefect.rules.models import RULE_MODELS
from proactive_prefect.settings import Settings
from tests.ledger.histories import NOON
from tests.missed.conftest import away as away
from tests.missed.relay import FORBIDDEN, Relay

from .rulesets import ACTION, DAILY, DAY, HOUR, MIDNIGHT, MINUTE, MINUTELY, RAN, note, run_of, seen, tell

NINE = MIDNIGHT + DAY + 9 * HOUR  # the next time that DAILY is due, as of noon
NEXT = entry_id("report", NINE)
SKILL = {"kind": "skill", "id": "tidy", "skill": "s", "schedule": {"type": "interval", "every": "1d"}}


def change(**fields: Any) -> Change:
    """A change as it is asked for."""
    made: Change = TypeAdapter(Change).validate_python(fields)
    return made


def move(target: datetime, event_id: str = NEXT) -> Change:
    """Another time for an occurrence."""
    return change(type="move", event_id=event_id, target=target.isoformat())


async def test_a_move_is_shown_in_the_rules_next_fires(ledger: Ledger) -> None:
    """Before and after, side by side; nothing speaks against it; it holds for ten minutes."""
    await note(ledger, seen(DAILY))
    shown = await preview(ledger, move(NINE + HOUR), by="ann", now=NOON)
    assert shown.before == [NINE + number * DAY for number in range(5)]
    assert shown.after == [NINE + HOUR, *shown.before[1:]]
    assert (shown.conflicts, shown.confirmable, shown.source_ref) == ([], True, "report")
    assert shown.summary == "report runs at 2026-03-02 10:00:00 UTC instead of 2026-03-02 09:00:00 UTC"
    assert shown.expires_at == NOON + 10 * MINUTE
    dropped = await preview(ledger, change(type="skip", event_id=NEXT), by="ann", now=NOON)
    assert dropped.after == shown.before[1:]


async def test_what_speaks_against_a_move_is_said(ledger: Ledger) -> None:
    """Its own next time, another order, and which of its conditions would say no: the gate runs it all the same."""
    rule = {
        **DAILY,
        "conditions": {"active_hours": {"start": "08:00", "end": "18:00"}},
        "end_at": "2026-03-04T00:00:00Z",
    }
    await note(ledger, seen(rule))
    for target, said in (
        (NINE + DAY, ["is due at 2026-03-03 09:00:00 UTC by itself"]),
        (NINE + DAY + HOUR, ["comes after the next one"]),
        (NINE + 11 * HOUR, ["outside_active_hours: 20:00 is not between 08:00 and 18:00 UTC; it runs all the same"]),
        (NINE + 5 * DAY, ["comes after the next one", "end_at is 2026-03-04"]),
    ):
        conflicts = (await preview(ledger, move(target), by="ann", now=NOON)).conflicts
        assert len(conflicts) == len(said), conflicts
        assert all(one in conflict for one, conflict in zip(said, conflicts, strict=True)), conflicts
        moved = Moment("report", target, UUID(int=0), "manual")
        made = RULE_MODELS["cron"].model_validate({"action": ACTION, **{k: v for k, v in rule.items() if k != "kind"}})
        assert decide(made, moved, Facts(now=target)) == Run()


async def test_pausing_shows_what_will_not_run(ledger: Ledger) -> None:
    """How many runs less in a day, and no next fires; resuming shows them again."""
    await note(ledger, seen(MINUTELY), seen({**DAILY, "id": "held"}, "paused"))
    paused = await preview(ledger, change(type="pause", rule="pulse"), by="ann", now=NOON)
    assert "1440 runs less" in paused.summary
    assert (len(paused.before), paused.after) == (5, [])
    resumed = await preview(ledger, change(type="resume", rule="held"), by="ann", now=NOON)
    assert (resumed.before, resumed.after[0]) == ([], NINE)
    again = await preview(ledger, change(type="resume", rule="pulse"), by="ann", now=NOON)
    assert again.conflicts == ["it is active already"]


async def test_another_schedule_can_be_looked_at_and_not_confirmed(ledger: Ledger) -> None:
    """When a rule is due is declared in the rules file: the preview says where to change it, and gives no id."""
    await note(ledger, seen(DAILY), seen(MINUTELY), seen(SKILL))
    shown = await preview(
        ledger,
        change(type="schedule", rule="report", cron="30 7 * * mon-fri", timezone="Europe/Berlin"),
        by="a",
        now=NOON,
    )
    assert (shown.id, shown.confirmable) == (None, False)
    assert shown.instead is not None
    assert "rules file" in shown.instead
    assert shown.after[0] == MIDNIGHT + DAY + 6.5 * HOUR
    slower = await preview(ledger, change(type="schedule", rule="pulse", every="2h"), by="a", now=NOON)
    assert slower.after[1] - slower.after[0] == 2 * HOUR
    skill = await preview(ledger, change(type="schedule", rule="tidy", cron="0 6 * * *"), by="a", now=NOON)
    assert skill.after[0] == MIDNIGHT + DAY + 6 * HOUR


@pytest.mark.parametrize(
    ("asked", "error", "said"),
    [
        ({"type": "move", "event_id": NEXT, "target": NOON - HOUR}, InputError, "not a time to come"),
        ({"type": "move", "event_id": NEXT, "target": NINE}, InputError, "when it is due"),
        ({"type": "skip", "event_id": entry_id("report", NINE - DAY)}, Stale, "completed"),
        ({"type": "skip", "event_id": entry_id("report", NINE - 2 * DAY)}, Stale, "due already"),
        ({"type": "skip", "event_id": entry_id("report", NINE + HOUR)}, Stale, "is not due at"),
        ({"type": "skip", "event_id": entry_id("held", NINE)}, Stale, "is not due at"),
        ({"type": "skip", "event_id": "report:20260302"}, UnknownEntry, "one scheduled entry"),
        ({"type": "skip", "event_id": "nonsense"}, UnknownEntry, "nonsense"),
        ({"type": "skip", "event_id": entry_id("nobody", NINE)}, UnknownRule, "nobody"),
        ({"type": "pause", "rule": "nobody"}, UnknownRule, "nobody"),
        ({"type": "schedule", "rule": "report"}, InputError, "exactly one of"),
        ({"type": "schedule", "rule": "report", "every": "5m"}, InputError, "allowed: cron"),
        ({"type": "schedule", "rule": "report", "cron": "61 * * * *"}, InputError, "61"),
        ({"type": "resume", "rule": "off"}, Stale, "allowed: what is paused"),
    ],
)
async def test_what_cannot_be_changed_is_said(
    ledger: Ledger, asked: dict[str, Any], error: type[InputError], said: str
) -> None:
    """What is past, running, not due, unknown or not well said; nothing is kept of it."""
    held, off = seen({**DAILY, "id": "held"}, "paused"), seen({**DAILY, "id": "off", "enabled": False}, "disabled")
    await note(ledger, seen(DAILY), held, off)
    await tell(ledger, run_of(DAILY, NINE - DAY), *RAN)
    with pytest.raises(error, match=said):
        await preview(ledger, change(**asked), by="ann", now=NOON)


async def test_a_stale_preview_is_not_done(ledger: Ledger, away: PrefectApi) -> None:
    """The rule was changed, the occurrence ran, or the preview is too old: it says so, and Prefect is not asked."""
    await note(ledger, seen(DAILY), seen(MINUTELY))
    moved = await preview(ledger, move(NINE + HOUR), by="ann", now=NOON)
    paused = await preview(ledger, change(type="pause", rule="pulse"), by="ann", now=NOON)
    gone = await preview(ledger, change(type="skip", event_id=NEXT), by="ann", now=NOON)
    assert moved.id
    assert paused.id
    assert gone.id
    with pytest.raises(Stale, match="expired"):
        await confirm(ledger, away, moved.id, by="ann", now=NOON + 11 * MINUTE)
    await note(ledger, seen(DAILY), seen({**MINUTELY, "every": "2m"}, at=NOON), at=NOON)
    with pytest.raises(Stale, match="has changed since"):
        await confirm(ledger, away, paused.id, by="ann", now=NOON + MINUTE)
    await tell(ledger, run_of(DAILY, NINE), "SCHEDULED/Scheduled", "CANCELLED/Cancelled")
    with pytest.raises(Stale, match="has changed since"):
        await confirm(ledger, away, gone.id, by="ann", now=NOON + MINUTE)
    with pytest.raises(UnknownChange):
        await confirm(ledger, away, "no-such-id", by="ann")


async def test_a_confirmed_change_is_kept_while_prefect_is_away(ledger: Ledger, away: PrefectApi) -> None:
    """Decided once, with who and when, and logged once; confirming again goes on with it, also after its time."""
    await note(ledger, seen(DAILY))
    shown = await preview(ledger, move(NINE + HOUR), by="ann", now=NOON)
    assert shown.id
    for later in (MINUTE, HOUR):
        with pytest.raises(PrefectUnreachable):
            await confirm(ledger, away, shown.id, by="bob" if later == HOUR else "ann", now=NOON + later)
    async with ledger.read() as session:
        kept = await session.get_one(CalendarChange, shown.id)
        events = [one for one in await last_events(session, 50) if one.event_type == "calendar_change_confirmed"]
    assert (kept.status, kept.confirmed_by, kept.confirmed_at) == ("confirmed", "ann", NOON + MINUTE)
    (event,) = events
    assert (event.source_ref, event.status, event.payload["confirmed_by"]) == ("report", "move", "ann")


async def test_a_confirmed_change_that_cannot_be_done_any_more_lapses(ledger: Ledger, away: PrefectApi) -> None:
    """Its rule was deleted while the gateway was down: that is said once, in the log and to who confirms again."""
    await note(ledger, seen(DAILY), seen(MINUTELY))
    shown = await preview(ledger, move(NINE + HOUR), by="ann", now=NOON)
    assert shown.id
    with pytest.raises(PrefectUnreachable):
        await confirm(ledger, away, shown.id, by="ann", now=NOON)
    assert await carry_left_behind(ledger, away, NOON) == 0  # whoever confirmed it may be at it still
    with pytest.raises(PrefectUnreachable):
        await carry_left_behind(ledger, away, NOON + MINUTE)
    await note(ledger, seen(MINUTELY), at=NOON)  # the other is gone
    assert await carry_left_behind(ledger, away, NOON + MINUTE) == 1
    assert await carry_left_behind(ledger, away, NOON + MINUTE) == 0
    with pytest.raises(Stale, match="no rule 'report' is deployed"):
        await confirm(ledger, away, shown.id, by="ann", now=NOON)
    async with ledger.read() as session:
        events = [one for one in await last_events(session, 50) if one.event_type == "calendar_change_lapsed"]
    (event,) = events
    assert (event.source_ref, event.status, event.payload["confirmed_by"]) == ("report", "move", "ann")


async def test_a_change_that_prefect_refuses_keeps_none_waiting(ledger: Ledger) -> None:
    """One that it refuses for now stays confirmed, and those behind it are looked at all the same."""
    await note(ledger, seen(DAILY), seen(MINUTELY))
    first, second = [
        await preview(ledger, change(type="pause", rule=rule), by="ann", now=NOON) for rule in ("pulse", "report")
    ]
    async with Relay("http://127.0.0.1:1/api") as relay:
        relay.says = FORBIDDEN
        with temporary_settings({PREFECT_API_URL: relay.url}):
            async with connect(Settings(api_patience=1)) as api:
                for late, shown in enumerate((first, second)):
                    with pytest.raises(Refused, match="403"):
                        await confirm(ledger, api, shown.id or "", by="ann", now=NOON + late * MINUTE)
                await note(ledger, seen(MINUTELY), at=NOON)  # the second's rule is gone: it lapses
                assert await carry_left_behind(ledger, api, NOON + HOUR) == 2
                relay.says = ("409 Conflict", "no, never")
                assert await carry_left_behind(ledger, api, NOON + HOUR) == 1
                assert await carry_left_behind(ledger, api, NOON + HOUR) == 0
    async with ledger.read() as session:
        events = [one for one in await last_events(session, 50) if one.event_type == "calendar_change_lapsed"]
    said = {one.source_ref: one.payload["message"] for one in events}
    assert said == {"report": "no rule 'report' is deployed", "pulse": "Prefect refused it: no, never"}


async def test_old_previews_are_taken_away(ledger: Ledger) -> None:
    """Those that nobody confirmed, after a day."""
    await note(ledger, seen(DAILY))
    old = await preview(ledger, change(type="skip", event_id=NEXT), by="ann", now=NOON)
    await preview(ledger, change(type="pause", rule="report"), by="ann", now=NOON + 2 * DAY + timedelta(hours=1))
    async with ledger.read() as session:
        assert await session.get(CalendarChange, old.id) is None
