"""The command that shows the calendar, from the ledger itself: it needs neither the gateway nor Prefect."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from datetime import date, datetime, timedelta, tzinfo
from typing import TYPE_CHECKING, Annotated, Literal

import cyclopts

from .output import Json, as_json, line, note, table

if TYPE_CHECKING:
    from ..calendar.entries import Asked, CalendarEvents, Entry

View = Literal["agenda", "day", "week"]
_DAYS = {"agenda": 2, "day": 1, "week": 7}
_GRAVE = ("missed", "failed", "timed_out", "unknown")


def calendar(
    *,
    view: View = "agenda",
    start: Annotated[str | None, cyclopts.Parameter(name=("--start", "--from"))] = None,
    days: int | None = None,
    rule: tuple[str, ...] = (),
    kind: tuple[str, ...] = (),
    status: tuple[str, ...] = (),
    json: Json = False,
) -> None:
    """Show what ran, runs, will run and was missed, in local time.

    A rule that is due very often is one row a day, with its counts. All that is missed and waits for somebody is shown
    at the end, whenever it was due.

    Examples:

        proactive calendar
        proactive calendar --view week
        proactive calendar --start 2026-03-01 --days 31 --status failed --status missed --json

    Parameters
    ----------
    view:
        agenda: a list by day. day: by the hour. week: a column a day.
    start:
        The first day, as 2026-03-01. Default: today; for the week its Monday.
    days:
        How many days, at most 366. Default: 2 for the agenda, 1 for the day, 7 for the week.
    rule:
        Only this rule; may be repeated.
    kind:
        Only heartbeat, cron, skill or webhook; may be repeated.
    status:
        Only entries of this status, such as scheduled, running, completed, failed, missed; may be repeated.
    """
    asyncio.run(_calendar(view, start, days, rule, kind, status, json))


async def _calendar(
    view: View,
    start: str | None,
    days: int | None,
    rule: tuple[str, ...],
    kind: tuple[str, ...],
    status: tuple[str, ...],
    json: bool,
) -> None:
    from ..calendar.entries import Asked
    from ..calendar.projection import Projection
    from ..ledger.db import open_ledger
    from ..settings import Settings

    first = _first(start, view)
    count = _DAYS[view] if days is None else days
    _check(count, kind, status)
    asked = Asked(_midnight(first), _midnight(first + timedelta(days=count)), *map(frozenset, (rule, kind, status)))
    async with open_ledger(Settings()) as ledger:
        found = await Projection(ledger).events(asked)
    if json:
        as_json(found.model_dump(mode="json", exclude={"run_url"}))
        return
    if view == "week":
        _show_week(found, asked, first, count)
    else:
        _show_days(found, hours=view == "day")
    _show_waiting(found)


def _show_days(found: CalendarEvents, *, hours: bool) -> None:
    by_day: dict[date, list[Entry]] = {}
    found_all = (*found.always_running, *found.events)
    for entry in sorted(found_all, key=lambda one: (_day(one), one.scheduled_at_utc)):
        by_day.setdefault(_day(entry), []).append(entry)
    if not by_day:
        note("nothing, in that time: no rule is due, and none ran")
    for day, entries in by_day.items():
        line(f"{day:%a %Y-%m-%d}")
        often = [one for one in entries if one.always_running]
        for entry in often:
            line(f"  often  {entry.source_ref:<24} {_counts(entry)}")
        hour = None
        for entry in entries:
            if entry.always_running:
                continue
            at = _local(entry.scheduled_at_utc)
            if hours and at.hour != hour:
                hour = at.hour
                line(f"  {hour:02}:00 ─────")
            line(f"  {at:%H:%M}  {entry.source_ref:<24} {entry.status:<12} {entry.reason[:80]}".rstrip())


def _show_week(found: CalendarEvents, asked: Asked, first: date, count: int) -> None:
    days = [first + timedelta(days=number) for number in range(min(count, 7))]
    rows: dict[str, dict[date, list[str]]] = {}
    for entry in found.always_running:
        rows.setdefault(entry.source_ref, {}).setdefault(_day(entry), []).append(_counts(entry))
    for entry in found.events:
        at = _local(entry.scheduled_at_utc)
        said = f"{at:%H:%M}" + ("" if entry.status == "scheduled" else f" {entry.status}")
        rows.setdefault(entry.source_ref, {}).setdefault(_day(entry), []).append(said)
    cells = [(rule_id, *("\n".join(by_day.get(day, ())) for day in days)) for rule_id, by_day in sorted(rows.items())]
    if cells:
        table(("rule", *(f"{day:%a %d %b}" for day in days)), cells)
    else:
        note("nothing, in that time: no rule is due, and none ran")


def _show_waiting(found: CalendarEvents) -> None:
    for entry in found.running:
        line(f"running  {entry.source_ref}, due {_local(entry.scheduled_at_utc):%a %H:%M}")
    for entry in found.stasis_queue[:20]:
        line(f"missed   {entry.source_ref}, due {_local(entry.scheduled_at_utc):%a %Y-%m-%d %H:%M}")
    if found.stasis_total > 20:
        line(f"         … {found.stasis_total} in all")
    if found.stasis_total:
        note("`proactive missed` decides about what was missed")


def _day(entry: Entry) -> date:
    """The local day of an entry; of one that stands for a day of UTC, that in which most of it falls."""
    return _local(entry.scheduled_at_utc + timedelta(hours=12 if entry.always_running else 0)).date()


def _counts(entry: Entry) -> str:
    counts = entry.counts or {}
    grave = [f"{counts[one]} {one}" for one in _GRAVE if one in counts]
    rest = [f"{number} {one}" for one, number in counts.items() if one not in _GRAVE]
    return ", ".join((*grave, *rest))


def _check(count: int, kinds: Iterable[str], statuses: Iterable[str]) -> None:
    from typing import get_args

    from ..errors import InputError
    from ..ledger.tables import OUTCOMES
    from ..rules.models import Kind

    if not 1 <= count <= 366:
        raise InputError(f"--days {count} is out of bounds; allowed: 1 to 366")
    for name, given, allowed in (
        ("kind", kinds, get_args(Kind)),
        ("status", statuses, ("scheduled", "running", *OUTCOMES)),
    ):
        for one in given:
            if one not in allowed:
                raise InputError(f"{one!r} is not a {name}; allowed: {', '.join(allowed)}")


def _first(text: str | None, view: View) -> date:
    from ..errors import InputError

    if text is None:
        today = datetime.now(_zone()).date()
        return today - timedelta(days=today.weekday()) if view == "week" else today
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise InputError(f"{text!r} is not a day; allowed: ISO 8601, such as 2026-03-01") from None


def _zone() -> tzinfo | None:
    return datetime.now().astimezone().tzinfo


def _midnight(day: date) -> datetime:
    """The beginning of a day on this machine's clock."""
    return datetime(day.year, day.month, day.day).astimezone()


def _local(at: datetime) -> datetime:
    return at.astimezone()
