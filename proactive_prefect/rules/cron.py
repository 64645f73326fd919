"""Cron expressions as people write them: five fields, or an @-name.

The grammar is what Prefect's scheduler and croniter both read alike: numbers, names, ranges (also around the end of
the week or the year), lists, steps, `L` for the last day of a month, `mon#1` for its first Monday and `L5` for its
last Friday. Where both the day of the month and the day of the week are restricted, either is enough.

Prefect carries its own copy of croniter 6.0, which is why ours is 6.0: later ones count some days that Prefect's does
not. An expression that loses days in that copy is refused.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from itertools import takewhile

from croniter import CroniterBadDateError, croniter

NAMES = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}
ALLOWED = 'five fields, minute hour day month weekday, such as "0 9 * * mon-fri", or one of ' + ", ".join(NAMES)


@dataclass(frozen=True)
class _Field:
    name: str
    low: int
    high: int
    words: tuple[str, ...] = ()
    special: str = ""
    specials: str = ""

    @property
    def allowed(self) -> str:
        words = f" or {self.words[0]} to {self.words[-1]}" if self.words else ""
        return f"{self.low} to {self.high}{words}, ranges a-b, lists a,b, steps */n{self.specials}"


_FIELDS = (
    _Field("minute", 0, 59),
    _Field("hour", 0, 23),
    _Field("day of the month", 1, 31, special=r"l", specials=", L for the last day"),
    _Field("month", 1, 12, ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")),
    _Field(
        "day of the week",
        0,
        7,
        ("sun", "mon", "tue", "wed", "thu", "fri", "sat"),
        special=r"(?:[0-7]|sun|mon|tue|wed|thu|fri|sat)#[1-5]|l[0-7]",
        specials=", mon#1 for the first Monday, L5 for the last Friday",
    ),
)
# Long enough for every date that ever comes: 29 February on one weekday is 28 years apart, 40 around 2100.
_SEARCH_FROM = datetime(2024, 1, 1)  # noqa: DTZ001 - a cron expression counts on the wall clock


def check_cron(expression: str) -> None:
    """Raise ValueError, with what is allowed, unless `expression` is a five-field cron expression or an @-name."""
    five_fields(expression)


@lru_cache(maxsize=4096)
def five_fields(expression: str) -> str:
    """`expression` as the five fields that Prefect is given: lower case, single spaces, no @-name.

    Raises ValueError where it is none, or where its date never comes.
    """
    if expression.strip().startswith("@"):
        return _from_name(expression.strip().lower())
    fields = expression.lower().split()
    if len(fields) in (6, 7):
        raise ValueError(_too_many(expression, fields))
    if len(fields) != 5:
        raise ValueError(f"{expression!r} has {len(fields)} field{'' if len(fields) == 1 else 's'}; allowed: {ALLOWED}")
    _check_fields(expression, fields)
    return " ".join(fields)


def _from_name(name: str) -> str:
    if name == "@reboot":
        raise ValueError(f"{name!r} is no time that a scheduler knows; allowed: {ALLOWED}")
    if name not in NAMES:
        raise ValueError(f"{name!r} is not a known name; allowed: {ALLOWED}")
    return NAMES[name]


def _check_fields(expression: str, fields: list[str]) -> None:
    for text, field in zip(fields, _FIELDS, strict=True):
        if not all(_part_is_valid(part, field) for part in text.split(",")):
            raise ValueError(f"{text!r} is not a {field.name} of a cron expression; allowed: {field.allowed}")
    try:
        croniter(" ".join(fields), _SEARCH_FROM).get_next(datetime)
    except CroniterBadDateError:
        raise ValueError(
            f"{expression!r} never comes: no such date; allowed: a day that some month of the list has"
        ) from None
    except ValueError as problem:
        raise ValueError(f"{expression!r} cannot be read ({problem}); allowed: {ALLOWED}") from None
    if any(_loses_days_of_march(fields, year) for year in (2027, 2028)):
        raise ValueError(
            f"{expression!r} would lose its first days of March: with 30 or 31 in a list of days, Prefect's scheduler "
            "miscounts a February; allowed: days up to 29, or L for the last day"
        )


def _loses_days_of_march(fields: list[str], year: int) -> bool:
    """Whether croniter, from `year`'s February, oversteps a day of March that the expression names."""
    expression = f"0 0 {fields[2]} {fields[3]} *"
    (_, _, days, months, _), _ = croniter.expand(expression)
    if "*" in days or not {"*", 3} & set(months):
        return False
    walker = croniter(expression, datetime(year, 2, 20))  # noqa: DTZ001
    last = datetime(year, 3, 4)  # noqa: DTZ001
    seen = set(takewhile(lambda day: day < last, (walker.get_next(datetime) for _ in range(20))))
    return any(datetime(year, 3, day) not in seen for day in days if day in (1, 2, 3))  # noqa: DTZ001


def _part_is_valid(part: str, field: _Field) -> bool:
    if field.special and re.fullmatch(field.special, part):
        return True
    span, slash, step = part.partition("/")
    if slash and not (step.isascii() and step.isdigit() and 1 <= int(step[:4]) <= field.high):
        return False
    if span == "*":
        return True
    ends = span.split("-")
    return len(ends) <= 2 and all(_end_is_valid(end, field) for end in ends)


def _end_is_valid(end: str, field: _Field) -> bool:
    if end in field.words:
        return True
    return end.isascii() and end.isdigit() and len(end) <= 2 and field.low <= int(end) <= field.high


def _too_many(expression: str, fields: list[str]) -> str:
    seconds, five = fields[0], [field.replace("?", "*") for field in fields[1:6]]
    found = f"{expression!r} has {len(fields)} fields"
    try:
        _check_fields(expression, five)
    except ValueError:
        return f"{found}; allowed: {ALLOWED}"
    if re.fullmatch(r"\d{1,2}", seconds) is None:
        return f'{found}, and cron\'s smallest step is a minute; allowed: a heartbeat with every = "10s", or {ALLOWED}'
    return f'{found}; allowed: five, without the seconds: "{" ".join(five)}"'
