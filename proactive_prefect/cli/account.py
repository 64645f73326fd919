"""Commands that read the ledger: why, events."""

from __future__ import annotations

import asyncio
import contextlib
import json as _json
import sys
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import cyclopts

from .output import Json, as_json, line, note

if TYPE_CHECKING:
    from ..ledger.tables import Event
    from ..ledger.why import Why

_LAST = 20
_HEADING = f"{'seq':>7}  {'when':<20}  {'event':<24} {'rule':<24} {'status':<10}  said"


def why(rule: str, time: str, /, *, json: Json = False) -> None:
    """Say what became of a rule at a time: it ran, was skipped, missed, or was not due, and why.

    Examples:

        proactive why disk 2026-03-01T09:00Z
        proactive why report 2026-03-01T09:00+01:00 --json

    Parameters
    ----------
    rule:
        The rule's id.
    time:
        ISO 8601 with an offset. Without seconds it names that whole minute.
    """
    asyncio.run(_why(rule, instant(time), json))


async def _why(rule_id: str, at: datetime, json: bool) -> None:
    from .context import connected, server_settings

    settings = server_settings()  # before Prefect is imported
    from ..errors import PrefectError
    from ..ledger.db import open_ledger
    from ..ledger.why import why, with_states

    async with open_ledger(settings) as ledger, ledger.read() as session:
        answer = await why(session, rule_id, at, datetime.now(UTC))
    with contextlib.suppress(PrefectError):  # the ledger's own answer stands without Prefect
        async with connected(settings) as api:
            answer = await with_states(api, answer)
    if json:
        as_json(answer.model_dump(mode="json"))
        return
    line(f"{rule_id} at {_utc(answer.due or at)}: {answer.verdict}")
    line(answer.text)
    _facts(answer)


def _facts(answer: Why) -> None:
    if answer.resolution is not None:
        to = f", to {_utc(answer.resolution.target)}" if answer.resolution.target else ""
        line(
            f"resolved  {answer.resolution.action}{to}, by {answer.resolution.by} "
            f"(via {answer.resolution.via}), {_utc(answer.resolution.at)}"
        )
    if answer.rescheduled_from is not None:
        line(f"from      rescheduled from {_utc(answer.rescheduled_from)}")
    if answer.run is not None:
        line(f"run       {answer.run.name}  {answer.run.url or answer.run.run_id}")
        states = [(one.at, one.name, one.message) for one in answer.run.states]
        steps = [(one.at, one.event_type, one.message) for one in answer.steps]
        for at, name, message in states or steps:
            line(f"          {_utc(at)}  {name:<12} {message or ''}".rstrip())
    for run_id in answer.other_runs:
        line(f"also run  {run_id}")
    if answer.previous_due is not None:
        line(f"before    was due {_utc(answer.previous_due)}")
    if answer.next_due is not None:
        line(f"after     is due {_utc(answer.next_due)}")
    for due in answer.also:
        line(f"also      {_utc(due)}")


def events(
    *,
    rule: str | None = None,
    n: Annotated[int, cyclopts.Parameter(name=("-n", "--count"))] = _LAST,
    follow: Annotated[bool, cyclopts.Parameter(negative="")] = False,
    json: Json = False,
) -> None:
    """Show the latest events of the log, oldest first; with --follow also those to come.

    With --json each event is one line of JSON.

    Examples:

        proactive events -n 50
        proactive events --rule disk --follow

    Parameters
    ----------
    rule:
        Only events of this rule.
    n:
        How many of the latest.
    follow:
        Go on, until Ctrl-C.
    """
    asyncio.run(_events(rule, max(n, 0), follow, json))


async def _events(rule_id: str | None, count: int, follow_on: bool, json: bool) -> None:
    from ..ledger.db import open_ledger
    from ..ledger.log import follow, last_events, read_head
    from ..settings import Settings

    async with open_ledger(Settings()) as ledger:
        async with ledger.read() as session:
            head = await read_head(session)
            found = await last_events(session, count, rule_id=rule_id)
        if not found and not follow_on and not json:
            note("no events yet: the gateway, which `proactive up` runs, writes them")
        if not json and (found or follow_on):
            line(_HEADING)
        _show(found, json)
        if not follow_on:
            return
        async for batch in follow(ledger, head.seq):
            _show([event for event in batch if rule_id in (None, event.source_ref)], json)


def _show(found: Iterable[Event], json: bool) -> None:
    for event in found:
        line(_as_line(event) if json else _in_words(event))
    sys.stdout.flush()


def _as_line(event: Event) -> str:
    return _json.dumps(event.model_dump(mode="json", exclude={"key", "recorded_at"}))


def _in_words(event: Event) -> str:
    more = event.payload.get("message") or event.payload.get("action") or ", ".join(event.payload.get("changed") or ())
    when = f"{event.seq:>7}  {_utc(event.occurred_at_utc)}"
    return f"{when}  {event.event_type:<24} {event.source_ref:<24} {event.status:<10}  {more}".rstrip()


def instant(text: str) -> datetime:
    """The instant that somebody wrote. Raises InputError."""
    from ..errors import InputError

    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        at = None
    if at is None or at.tzinfo is None:
        raise InputError(
            f"{text!r} is not an instant; allowed: ISO 8601 with an offset",
            hint=f"For example {datetime.now(UTC):%Y-%m-%dT%H:%MZ}.",
        )
    return at


def _utc(at: datetime) -> str:
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%M:%S}Z"
