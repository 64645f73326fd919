"""`proactive missed`: what was due and did not start, and the decision about it."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any

import cyclopts

from .account import instant
from .output import Json, as_json, line, note, table

if TYPE_CHECKING:
    from ..ledger.db import Ledger
    from ..ledger.tables import Occurrence, ResolutionAction
    from ..missed.queue import MissedItem, MissedQueue, Preview
    from ..missed.resolve import Resolved
    from ..prefect_api import PrefectApi
    from ..settings import Settings

app = cyclopts.App(name="missed", help="What was due and did not start: list it, and decide about it.")

_Missed = Annotated[str, cyclopts.Parameter(help="Their numbers in the list, or the ids of their runs.")]
_All = Annotated[bool, cyclopts.Parameter(name="--all", negative="", help="All that wait for a decision.")]
_Rule = Annotated[str | None, cyclopts.Parameter(help="All of this rule.")]
_Before = Annotated[str | None, cyclopts.Parameter(help="All that were due before then; ISO 8601 with an offset.")]
_Yes = Annotated[bool, cyclopts.Parameter(name=("--yes", "-y"), negative="", help="Do not ask.")]
_SHOWN = 500
_FEW = 3


@app.command(name="list")
def list_(rule: str | None = None, /, *, before: _Before = None, json: Json = False) -> None:
    """List what was missed and waits, oldest first: what becomes of each, what is left out, and what is found next.

    Examples:

        proactive missed list
        proactive missed list disk --before 2026-03-01T00:00Z

    Parameters
    ----------
    rule:
        Only of this rule.
    """
    asyncio.run(_list(rule, instant(before) if before else None, json))


@app.command
def approve(
    *missed: _Missed,
    rule: _Rule = None,
    before: _Before = None,
    all_: _All = False,
    yes: _Yes = False,
    json: Json = False,
) -> int:
    """Let missed runs go, each with its original due time: as many at once as PROACTIVE_MISSED_AT_ONCE says.

    Examples:

        proactive missed approve 12 13
        proactive missed approve --rule disk
    """
    return asyncio.run(_decide("approve_backfill_run", missed, rule, before, all_, yes, json))


@app.command
def reschedule(
    *missed: _Missed,
    to: str,
    rule: _Rule = None,
    before: _Before = None,
    all_: _All = False,
    yes: _Yes = False,
    json: Json = False,
) -> int:
    """Run later what was missed, as new runs.

    Example:

        proactive missed reschedule 12 --to 2026-03-01T18:00+01:00

    Parameters
    ----------
    to:
        When; ISO 8601 with an offset.
    """
    return asyncio.run(_decide("reschedule", missed, rule, before, all_, yes, json, target=instant(to)))


@app.command
def delete(
    *missed: _Missed,
    rule: _Rule = None,
    before: _Before = None,
    all_: _All = False,
    yes: _Yes = False,
    json: Json = False,
) -> int:
    """Drop missed runs: they never run.

    Example:

        proactive missed delete --before 2026-03-01T00:00Z --yes
    """
    return asyncio.run(_decide("delete_missed", missed, rule, before, all_, yes, json))


@contextlib.asynccontextmanager
async def _open() -> AsyncIterator[tuple[Ledger, PrefectApi, Settings]]:
    from .context import connected, server_settings

    settings = server_settings()  # before Prefect is imported
    from ..ledger.db import open_ledger

    async with open_ledger(settings) as ledger, connected(settings) as api:
        yield ledger, api, settings


async def _list(rule_id: str | None, before: datetime | None, json: bool) -> None:
    from .context import server_settings

    settings = server_settings()
    from ..errors import PrefectError
    from ..ledger.db import open_ledger
    from ..missed.queue import preview, read_queue
    from ..missed.resolve import learn_held
    from .context import connected

    rule_ids = [rule_id] if rule_id else None
    async with open_ledger(settings) as ledger:
        try:
            async with connected(settings) as api:
                await learn_held(ledger, api, settings)
        except PrefectError as error:  # what the ledger knows can be read without
            note(f"note: {error.message}; this is as of the last time it did")
        async with ledger.read() as session:
            now = datetime.now(UTC)
            queue = await read_queue(session, settings, now, rule_ids=rule_ids, before=before, limit=_SHOWN)
            coming = await preview(session, settings, now, rule_ids=rule_ids)
    if json:
        as_json({**queue.model_dump(mode="json"), "found_next": [one.model_dump(mode="json") for one in coming]})
        return
    _show(queue, coming)


def _show(queue: MissedQueue, coming: Sequence[Preview]) -> None:
    if queue.items:
        rows = [
            (str(one.occurrence_id), one.rule_id, _utc(one.due), _ago(one.late_by), _fate(one)) for one in queue.items
        ]
        table(("number", "rule", "due", "late by", "what becomes of it"), rows)
    else:
        line("nothing that was missed waits")
    if queue.total > len(queue.items):
        line(f"and {queue.total - len(queue.items)} more")
    if queue.in_flight:
        line(f"{queue.in_flight} of at most {queue.at_once} approved runs are on their way")
    if coming:
        line(f"found next, by the gateway ({len(coming)}):")
        table(("rule", "due", "what becomes of it"), _folded(coming)[:_SHOWN])
    for left in queue.left_out:
        line(f"left out: {left.count} of {left.rule_id} from {_utc(left.since)} to {_utc(left.until)}: {left.reason}")


def _folded(coming: Sequence[Preview]) -> list[tuple[str, str, str]]:
    """A row each; of a rule that was due often, and of which the same becomes each time, one row for all of them."""
    alike: dict[tuple[str, str], list[Preview]] = {}
    for one in coming:
        fate = ":".join(one.will.split(":")[:2])  # "is skipped: stale", without the times
        alike.setdefault((one.rule_id, fate), []).append(one)
    rows = []
    for (rule_id, fate), them in alike.items():
        if len(them) > _FEW:
            rows.append((rule_id, f"{len(them)} from {_utc(them[0].due)} to {_utc(them[-1].due)}", fate))
        else:
            rows += [(rule_id, _utc(one.due), one.will) for one in them]
    return rows


def _fate(item: MissedItem) -> str:
    if item.turn is not None:
        return f"runs, as number {item.turn} in turn"
    if item.waits_for == "turn":
        return f"runs in its turn (on_missed = {item.on_missed})"
    until = f", until {_utc(item.stale_at)}: then it is skipped" if item.stale_at else ""
    return f"waits for a decision{until}"


async def _decide(
    action: ResolutionAction,
    names: Sequence[str],
    rule: str | None,
    before: str | None,
    every: bool,
    yes: bool,
    json: bool,
    *,
    target: datetime | None = None,
) -> int:
    from ..errors import InputError

    bulk = rule is not None or before is not None
    if bool(names) + bulk + every != 1:
        raise InputError(
            "which ones? allowed: numbers or run ids, --rule and --before, or --all",
            hint="`proactive missed list` shows them.",
        )
    limit = instant(before) if before else None
    async with _open() as (ledger, api, settings):
        from ..missed.carry import carry_out
        from ..missed.resolve import find_missed, learn_held, resolve_missed, this_user

        if names:
            ids = [await _number(ledger, api, settings, name) for name in names]
        else:
            await learn_held(ledger, api, settings)
            async with ledger.read() as session:
                found = await find_missed(session, rule_ids=[rule] if rule else None, before=limit)
            if not found:
                note("nothing that was missed matches")
            elif not yes:
                _confirm(action, found)
            ids = [one.id for one in found if one.id is not None]
        answers = await resolve_missed(ledger, api, settings, ids, action, by=this_user(), via="cli", target=target)
        if action != "approve_backfill_run":
            while await carry_out(ledger, api, settings):
                pass
            answers = [one.model_copy(update={"carried_out": True}) for one in answers]
    if json:
        as_json([one.model_dump(mode="json") for one in answers])
    else:
        _tell(answers)
    return int(any(one.action != action for one in answers))


async def _number(ledger: Ledger, api: PrefectApi, settings: Settings, name: str) -> int:
    from ..missed.resolve import occurrence_of_run

    number = name.removeprefix("#")
    if number.isascii() and number.isdigit() and len(number) < 16:
        return int(number)
    return await occurrence_of_run(ledger, api, settings, name)


def _confirm(action: str, found: Sequence[Occurrence]) -> None:
    from ..errors import InputError

    what = {"approve_backfill_run": "Run", "reschedule": "Reschedule", "delete_missed": "Delete"}[action]
    rules = sorted({one.rule_id for one in found})
    of = ", ".join(rules[:5]) + (f" and {len(rules) - 5} more rules" if len(rules) > 5 else "")
    text = f"{what} {len(found)} missed runs of {of}, due {_utc(found[0].due)} to {_utc(found[-1].due)}?"
    if not sys.stdin.isatty():
        raise InputError(f"{text} Nobody is here to ask", hint="--yes says so.")
    if input(f"{text} [y/N] ").strip().lower() not in ("y", "yes"):
        raise InputError("nothing was changed")


_DECIDED = {"approve_backfill_run": "will run", "reschedule": "rescheduled", "delete_missed": "deleted"}


def _tell(answers: Sequence[Resolved]) -> None:
    waiting = 0
    for one in answers:
        name = f"{one.occurrence_id}  {one.rule_id}  due {_utc(one.due)}"
        if one.status == "not_missed":
            line(f"{name}: {one.outcome}, nothing to decide")
            continue
        to = f" to {_utc(one.target)}" if one.target else ""
        by = "" if one.status == "resolved" else f", by {one.by} (via {one.via}), {_utc(one.at)}"
        turn = " (waits for its turn)" if not one.carried_out else ""
        waiting += not one.carried_out
        line(f"{name}: {_DECIDED[one.action or '']}{to}{by}{turn}")
    if waiting:
        note(f"note: {waiting} go when others have ended; the gateway sees to it")


def _utc(at: Any) -> str:
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%M:%S}Z" if isinstance(at, datetime) else "?"


def _ago(seconds: float) -> str:
    from ..rules.durations import format_duration

    return format_duration(timedelta(seconds=int(seconds)))
