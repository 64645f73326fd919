"""The ids of the calendar's entries: made of the rule and the moment, so they hold from the future into the past."""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass
from datetime import UTC, date, datetime

from ..errors import InputError
from ..ledger.outcomes import RESCHEDULED, occurrence_key

_INSTANT = "%Y%m%dT%H%M%S.%fZ"
_DAY = "%Y%m%d"


class UnknownEntry(InputError):
    """The calendar has no such entry."""


@dataclass(frozen=True)
class EntryId:
    """What an id names: an occurrence by its key, or a whole day of a rule."""

    rule_id: str
    key: str | None = None
    due: datetime | None = None
    """None where the id does not say it: a webhook's delivery, and what was rescheduled."""
    day: date | None = None


def entry_id(rule_id: str, due: datetime) -> str:
    """The id of the occurrence of a rule at an instant."""
    # Not strftime, which fills a month of a thousand rules slowly.
    at = due.astimezone(UTC)
    return (
        f"{rule_id}:{at.year:04}{at.month:02}{at.day:02}T{at.hour:02}{at.minute:02}{at.second:02}.{at.microsecond:06}Z"
    )


def entry_id_of_key(rule_id: str, key: str, due: datetime) -> str:
    """The id of the occurrence of that key."""
    if key.startswith("due:"):
        return entry_id(rule_id, due)
    return _keyed(rule_id, key)


def origin_of(rule_id: str, key: str) -> str | None:
    """The id of what the occurrence of that key was rescheduled from; None if it was not."""
    prefix, _, origin = key.partition(":")
    if prefix != RESCHEDULED:
        return None
    if origin.startswith("due:"):
        return entry_id(rule_id, datetime.fromisoformat(origin.removeprefix("due:")))
    return _keyed(rule_id, origin)


def _keyed(rule_id: str, key: str) -> str:
    return f"{rule_id}:k-{base64.urlsafe_b64encode(key.encode()).decode().rstrip('=')}"


def day_id(rule_id: str, day: date) -> str:
    """The id of all occurrences of a rule on one day (UTC)."""
    return f"{rule_id}:{day:{_DAY}}"


def read_id(text: str) -> EntryId:
    """What an id names. Raises UnknownEntry for a text that is none."""
    rule_id, _, rest = text.rpartition(":")
    try:
        if not rule_id:
            raise ValueError(text)
        if rest.startswith("k-"):
            padded = rest[2:] + "=" * (-len(rest[2:]) % 4)
            return EntryId(rule_id, base64.b64decode(padded, b"-_", validate=True).decode())
        if "T" in rest:
            due = datetime.strptime(rest, _INSTANT).replace(tzinfo=UTC)
            return EntryId(rule_id, occurrence_key(due), due)
        return EntryId(rule_id, day=datetime.strptime(rest, _DAY).replace(tzinfo=UTC).date())
    except (ValueError, binascii.Error, UnicodeDecodeError):
        raise UnknownEntry(f"{text[:200]!r} is not the event_id of a calendar entry") from None
