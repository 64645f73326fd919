"""Conditions: when a due rule may run. Pure functions of the rule and the instant at which it was due.

They are judged at the due time, not at the time of asking: so the answer is the same wherever and however late the
gate asks (in the worker before a process starts, in the run after it, or in a preview days ahead).

A `custom` expression (and a webhook's `when`) is CEL and sees:

    rule      id, kind, tags, owner, environment
    due       year, month, day, hour, minute, weekday ("mon"), in the rule's timezone; at, the instant
    cause     "schedule", "manual" or "webhook"
    payload   a webhook's body: its JSON, or its text; null for other rules
    headers   a webhook's headers, by lower-case name

It must give true or false. Anything else, an error among them, counts as false: a condition that cannot be judged
lets nothing run.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal
from zoneinfo import ZoneInfo

from .models import RuleBase
from .policies import ActiveHours
from .timing import CronTiming

if TYPE_CHECKING:
    from cel import Program

Cause = Literal["schedule", "manual", "webhook"]
ConditionCode = Literal[
    "outside_active_hours", "wrong_day", "excluded_date", "environment", "session_inactive", "condition_false"
]

WEEKDAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_FIELDS: dict[str, tuple[str, ...]] = {
    "rule": ("id", "kind", "tags", "owner", "environment"),
    "due": ("year", "month", "day", "hour", "minute", "weekday", "at"),
}
VARIABLES = ("rule", "due", "cause", "payload", "headers")

# The library evaluates without a limit of time, and its `map` costs the square of a list's length. So the expression
# may go over a list, but not over lists within it, and what it goes over is small: a second at the very worst.
MAX_EXPRESSION = 4096
MAX_LISTS = 4
MAX_VALUES = 5_000
MAX_TEXT = 262_144

_TYPES = {"bool", "int", "uint", "double", "string", "bytes", "list", "map", "timestamp", "duration", "null_type"}
_FUNCTIONS = {
    *_TYPES, "size", "contains", "startsWith", "endsWith", "matches", "type", "min", "max", "has",
    "getFullYear", "getMonth", "getDate", "getDayOfMonth", "getDayOfWeek", "getDayOfYear",
    "getHours", "getMinutes", "getSeconds", "getMilliseconds",
}  # fmt: skip
_MACRO = re.compile(r"\.\s*(?:all|exists|exists_one|existsOne|map|filter)\s*\(\s*([A-Za-z_]\w*)\s*,")
_TEXT = re.compile(
    r"""[rRbB]{0,2}(?:'''.*?'''|\"\"\".*?\"\"\"|'(?:\\.|[^'\\\n])*'|"(?:\\.|[^"\\\n])*")|//[^\n]*""", re.S
)
_FIELD = re.compile(r"(?<![\w.])(rule|due)\s*\.\s*([A-Za-z_]\w*)(?!\s*\()")


@dataclass(frozen=True)
class Unmet:
    """The first condition that does not hold: its code, and why in words."""

    code: ConditionCode
    text: str


def unmet(
    rule: RuleBase, due: datetime, *, cause: Cause = "schedule", session_active: bool | None = None, payload: Any = None
) -> Unmet | None:
    """The first condition of `rule` that does not hold for an occurrence due at `due` (aware), or None.

    `session_active` is the answer of the rule's session hook; None where nobody could ask it: then it is not judged.
    """
    given = rule.conditions
    local = due.astimezone(ZoneInfo(_zone(rule)))
    if (hours := given.active_hours) is not None and not is_within(hours, due, _zone(rule)):
        zone = hours.timezone or _zone(rule)
        at = due.astimezone(ZoneInfo(zone))
        return Unmet(
            "outside_active_hours", f"{at:%H:%M} is not between {hours.start:%H:%M} and {hours.end:%H:%M} {zone}"
        )
    if given.days_of_week is not None and WEEKDAYS[local.weekday()] not in given.days_of_week:
        return Unmet("wrong_day", f"{WEEKDAYS[local.weekday()]} is not one of {', '.join(given.days_of_week)}")
    if given.environment is not None and rule.environment not in given.environment:
        return Unmet("environment", f"{rule.environment} is not one of {', '.join(given.environment)}")
    if given.exclude_dates is not None and local.date() in given.exclude_dates:
        return Unmet("excluded_date", f"{local.date()} is one of exclude_dates")
    if given.holidays is not None and (name := holiday(given.holidays, local.date())) is not None:
        return Unmet("excluded_date", f"{local.date()} is a holiday in {given.holidays}: {name}")
    if given.session_active is not None and session_active not in (None, given.session_active):
        return Unmet("session_inactive", "no session is active" if given.session_active else "a session is active")
    if given.custom is not None:
        scope = expression_scope(rule, due, cause=cause, payload=payload)
        if (why := why_false(given.custom, scope)) is not None:
            return Unmet("condition_false", why)
    return None


def is_within(hours: ActiveHours, at: datetime, timezone: str) -> bool:
    """Whether `at` is in the hours by the clock on the wall: start counts, end does not; over midnight, either side.

    Hours that start and end at the same time are the whole day. In a clock change the wall's time decides, twice an
    hour if it shows it twice.
    """
    wall = at.astimezone(ZoneInfo(hours.timezone or timezone)).time()
    if hours.start < hours.end:
        return hours.start <= wall < hours.end
    return wall >= hours.start or wall < hours.end


def holiday(region: str, day: date) -> str | None:
    """The name of the public holiday that `day` is in `region` ("DE", "US-NY"), or None.

    Raises ValueError where there is no calendar for the region.
    """
    return _calendar(region, day.year).get(day)


def check_holidays(region: str) -> None:
    """Raise ValueError, with what is allowed, unless there is a calendar of public holidays for `region`."""
    _calendar(region, 2026)


def expression_scope(
    rule: RuleBase,
    due: datetime,
    *,
    cause: Cause,
    payload: Any = None,
    headers: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """What an expression sees (the module's text lists it)."""
    local = due.astimezone(ZoneInfo(_zone(rule)))
    return {
        "rule": {
            "id": rule.id,
            "kind": getattr(rule, "kind", ""),
            "tags": list(rule.tags),
            "owner": rule.owner,
            "environment": rule.environment,
        },
        "due": {
            "year": local.year,
            "month": local.month,
            "day": local.day,
            "hour": local.hour,
            "minute": local.minute,
            "weekday": WEEKDAYS[local.weekday()],
            "at": due,
        },
        "cause": cause,
        "payload": payload,
        "headers": {name.lower(): value for name, value in (headers or {}).items()},
    }


def check_custom(expression: str) -> None:
    """Raise ValueError, in one line with what is allowed, unless `expression` can be judged by `why_false`."""
    if len(expression) > MAX_EXPRESSION:
        raise ValueError(f"{len(expression)} characters; allowed: at most {MAX_EXPRESSION}")
    try:
        program = _compile(expression)
    except ValueError as error:
        raise ValueError(f"not a CEL expression: {_first_line(error)}") from None
    bare = _TEXT.sub("''", expression)
    found = program.references()
    bound = set(_MACRO.findall(bare))
    for name in found["variables"]:
        if name not in bound and name not in VARIABLES and name not in _TYPES:
            raise ValueError(f"unknown variable {name!r}; allowed: {', '.join(VARIABLES)}")
    for name in found["functions"]:
        if name.isidentifier() and not name.startswith("_") and name not in _FUNCTIONS:
            raise ValueError(f"unknown function {name!r}; allowed: {', '.join(sorted(_FUNCTIONS))}")
    for owner, field in _FIELD.findall(bare):
        if owner not in bound and field not in _FIELDS[owner]:
            raise ValueError(f"unknown field {owner}.{field}; allowed: {', '.join(_FIELDS[owner])}")
    _check_lists(bare)


def why_false(expression: str, scope: Mapping[str, Any]) -> str | None:
    """None where `expression` is true in `scope` (see `expression_scope`), else why it counts as false."""
    if (large := _too_large(scope)) is not None:
        return f"{expression!r} was not judged: {large}"
    try:
        check_custom(expression)
        answer = _compile(expression).execute(dict(scope))
    except KeyError as error:
        return f"{expression!r} could not be judged: there is no {error}"
    except Exception as error:  # the library raises what it likes; whatever it is, nothing runs
        return f"{expression!r} could not be judged: {_first_line(error)}"
    if answer is True:
        return None
    return f"{expression!r} is {'false' if answer is False else 'neither true nor false'}"


def value_of(expression: str, scope: Mapping[str, Any]) -> Any:
    """What `expression` gives in `scope`; None where it cannot be said, as of a field that is not there."""
    if _too_large(scope) is not None:
        return None
    try:
        check_custom(expression)
        return _compile(expression).execute(dict(scope))
    except Exception:  # the library raises what it likes
        return None


@lru_cache(maxsize=256)
def _compile(expression: str) -> Program:
    import cel  # here, because it brings a whole terminal with it, which few rules need

    return cel.compile(expression)


def _check_lists(bare: str) -> None:
    opened = [match.end() for match in _MACRO.finditer(bare)]
    if len(opened) > MAX_LISTS:
        raise ValueError(f"goes over lists {len(opened)} times; allowed: at most {MAX_LISTS}")
    for start in opened:
        depth, end = 1, start
        while depth and end < len(bare):
            depth += {"(": 1, ")": -1}.get(bare[end], 0)
            end += 1
        if any(start < other < end for other in opened):
            raise ValueError("goes over a list for each item of another; allowed: one list at a time")


def _too_large(scope: Mapping[str, Any]) -> str | None:
    """Why a webhook's payload is too large to go over, or None."""
    values = [scope.get("payload"), scope.get("headers")]
    count = text = 0
    while values:
        value = values.pop()
        count += 1
        if isinstance(value, dict):
            values.extend(value.values())
            text += sum(len(key) for key in value if isinstance(key, str))
        elif isinstance(value, list):
            values.extend(value)
        elif isinstance(value, str):
            text += len(value)
        if count > MAX_VALUES or text > MAX_TEXT:
            return f"the payload is larger than {MAX_VALUES} values or {MAX_TEXT} characters"
    return None


def _first_line(error: BaseException) -> str:
    text = re.sub(r"^Failed to parse expression .*?: (?=ERROR)", "", str(error), flags=re.S)
    return (text.splitlines() or [type(error).__name__])[0][:300]


def _zone(rule: RuleBase) -> str:
    """The timezone that the rule's times are in: a skill's cron schedule may have one of its own."""
    timing = getattr(rule, "timing", None)
    return timing.timezone if isinstance(timing, CronTiming) else rule.timezone


@lru_cache(maxsize=64)
def _calendar(region: str, year: int) -> Mapping[date, str]:
    import holidays  # here, because it takes longer to import than most runs take

    country, _, part = region.partition("-")
    try:
        return holidays.country_holidays(country, subdiv=part or None, years=year)
    except NotImplementedError:
        raise ValueError(
            f"no calendar of holidays for {region!r}; allowed: a country such as DE, or a part of one such as US-NY"
        ) from None


def read_payload(text: str | None) -> Any:
    """A payload as an expression sees it: the JSON that it is, else the text itself."""
    if text is None:
        return None
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text
