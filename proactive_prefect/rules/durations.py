"""Durations as users write them: "90s", "5m", "1h30m", "2d"."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, PlainSerializer, PlainValidator, WithJsonSchema

_UNITS = {"d": 86400.0, "h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}
_PART = r"([0-9]+(?:\.[0-9]+)?)(ms|d|h|m|s)"
_WHOLE = re.compile(rf"(?:{_PART})+")
_LONGEST = timedelta(days=3660)
_TEXT = {"type": "string", "pattern": f"^({_PART})+$", "examples": ["90s", "5m", "1h30m", "2d"]}

ALLOWED = 'text such as "90s", "5m", "1h30m" or "2d"'


def parse_duration(text: str) -> timedelta:
    """Read `text` (units d, h, m, s, ms, largest first or not, no spaces). Raises ValueError with what is allowed."""
    if not _WHOLE.fullmatch(text):
        raise ValueError(f"{text!r} is not a duration; allowed: {ALLOWED}")
    seconds = sum(float(number) * _UNITS[unit] for number, unit in re.findall(_PART, text))
    if seconds > _LONGEST.total_seconds():
        raise ValueError(f"{text!r} is too long; allowed: up to ten years")
    return timedelta(seconds=seconds)


def format_duration(value: timedelta) -> str:
    """The shortest text that `parse_duration` reads back as `value`: "1h30m", "90s" becomes "1m30s"."""
    rest = round(value.total_seconds() * 1000)
    text = ""
    for unit, seconds in _UNITS.items():
        count, rest = divmod(rest, round(seconds * 1000))
        if count:
            text += f"{count}{unit}"
    return text or "0s"


def _validate(value: Any) -> timedelta:
    if isinstance(value, timedelta):
        return value
    if isinstance(value, str):
        return parse_duration(value)
    raise ValueError(f"{value!r} is not a duration; allowed: {ALLOWED}")


Duration = Annotated[
    timedelta,
    BeforeValidator(_validate),
    PlainSerializer(format_duration, return_type=str),
    WithJsonSchema(_TEXT),
]


def _validate_one_or_more(value: Any) -> timedelta | list[timedelta]:
    if not isinstance(value, list):
        return _validate(value)
    if not value:
        raise ValueError("an empty list; allowed: one duration, or a list of at least one")
    return [_validate(item) for item in value]


def _format_one_or_more(value: timedelta | list[timedelta]) -> str | list[str]:
    return [format_duration(item) for item in value] if isinstance(value, list) else format_duration(value)


Durations = Annotated[
    timedelta | list[timedelta],
    PlainValidator(_validate_one_or_more),
    PlainSerializer(_format_one_or_more, return_type=str | list[str]),
    WithJsonSchema({"anyOf": [_TEXT, {"type": "array", "items": _TEXT, "minItems": 1}]}),
]


def at_least(least: timedelta) -> AfterValidator:
    """Refuses durations below `least`."""

    def check(value: timedelta) -> timedelta:
        if value < least:
            raise ValueError(f'{format_duration(value)!r} is too short; allowed: "{format_duration(least)}" or more')
        return value

    return AfterValidator(check)


def at_most(most: timedelta) -> AfterValidator:
    """Refuses durations above `most`."""

    def check(value: timedelta) -> timedelta:
        if value > most:
            raise ValueError(f'{format_duration(value)!r} is too long; allowed: "{format_duration(most)}" or less')
        return value

    return AfterValidator(check)
