"""How a rule behaves: every key that may stand on a rule and in `[defaults]`."""

from __future__ import annotations

import datetime as dt
from datetime import timedelta
from functools import cache
from typing import Annotated, Any, Literal
from zoneinfo import available_timezones

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    Strict,
    WithJsonSchema,
    field_validator,
)

from .durations import Duration, Durations, at_least

Overlap = Literal["skip", "queue_one", "queue_all", "cancel_running", "allow"]
OnMissed = Literal["ask", "run", "latest", "skip"]
Weekday = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]


class KeyMistake(ValueError):
    """A mistake that shows only when several keys are seen together; `key` is the one to change."""

    def __init__(self, key: tuple[str | int, ...], text: str) -> None:
        super().__init__(text)
        self.key = key


@cache
def _timezones() -> frozenset[str]:
    # Walks the whole timezone database: once is enough.
    return frozenset(available_timezones())


def _known_timezone(name: str) -> str:
    if name not in _timezones():
        raise ValueError(f'{name!r} is not a timezone; allowed: an IANA name such as "Europe/Berlin" or "UTC"')
    return name


Timezone = Annotated[str, AfterValidator(_known_timezone), Field(examples=["UTC", "America/New_York"])]
ClockTime = Annotated[
    dt.time,
    PlainSerializer(lambda time: time.strftime("%H:%M"), return_type=str),
    WithJsonSchema({"type": "string", "pattern": r"^([01]\d|2[0-3]):[0-5]\d$", "examples": ["09:00"]}),
]


def _written_with_offset(value: Any) -> Any:
    if isinstance(value, dt.datetime) and value.tzinfo is not None:
        return value
    try:
        instant = dt.datetime.fromisoformat(value)
    except (TypeError, ValueError):
        raise ValueError(f"{str(value)!r} is not an instant; allowed: {_INSTANT}") from None
    if instant.tzinfo is None:
        raise ValueError(f"{value!r} has no offset from UTC; allowed: {_INSTANT}")
    return instant


def _written_as_date(value: Any) -> Any:
    if type(value) is dt.date:
        return value
    try:
        return dt.date.fromisoformat(value)
    except (TypeError, ValueError):
        raise ValueError(f'{str(value)!r} is not a date; allowed: "YYYY-MM-DD"') from None


_INSTANT = 'ISO 8601 with an offset, such as "2026-12-24T18:00:00+01:00" or "2026-12-24T17:00:00Z"'
Instant = Annotated[AwareDatetime, BeforeValidator(_written_with_offset)]
Day = Annotated[dt.date, BeforeValidator(_written_as_date)]
Flag = Annotated[bool, Strict()]
Count = Annotated[int, Strict()]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ActiveHours(_Part):
    """From `start` (inclusive) to `end` (exclusive); over midnight where end is before start."""

    start: ClockTime = Field(description="The first minute, local time.")
    end: ClockTime = Field(description="The first minute that no longer counts, local time.")
    timezone: Timezone | None = Field(default=None, description="Default: the rule's timezone.")

    @field_validator("start", "end", mode="before")
    @classmethod
    def _clock_time(cls, value: Any) -> Any:
        if isinstance(value, dt.time):
            return value
        try:
            return dt.datetime.strptime(value, "%H:%M").time()  # noqa: DTZ007 - a wall-clock time has no zone
        except (TypeError, ValueError):
            raise ValueError(f'{value!r} is not a time of day; allowed: "HH:MM" from "00:00" to "23:59"') from None


class Conditions(_Part):
    """When a due rule may run; all that are given must hold, else the occurrence is skipped with the reason."""

    active_hours: ActiveHours | None = Field(default=None, description="The hours of a day when it may run.")
    days_of_week: list[Weekday] | None = Field(default=None, min_length=1, description="The days when it may run.")
    environment: list[str] | None = Field(
        default=None, min_length=1, description="The environments where it may run; the project says which this is."
    )
    session_active: Flag | None = Field(
        default=None, description="Needs `[proactive] session_hook`, a callable that answers whether one is."
    )
    exclude_dates: list[Day] | None = Field(default=None, description="Days without a run, in the rule's timezone.")
    holidays: str | None = Field(
        default=None,
        pattern=r"^[A-Z]{2}(-[A-Z0-9]{1,3})?$",
        description='No run on public holidays of a country, or of a part of it: "DE", "US-NY".',
    )
    custom: str | None = Field(default=None, max_length=4096, description="A CEL expression that gives true or false.")


class Dst(_Part):
    """What happens to local times that a clock change removes (gap) or repeats (overlap)."""

    gap: Literal["shift", "skip"] = Field(
        default="shift", description="A local time that does not exist: moved by the gap's length, or left out."
    )
    overlap: Literal["first", "both"] = Field(
        default="first", description="A local time that comes twice: due the first time, or both times."
    )


class Notifications(_Part):
    """Channels to tell, by outcome."""

    on_success: list[str] = Field(default_factory=list, description="When it has run and has something to say.")
    on_failure: list[str] = Field(default_factory=list, description="When it has failed, timed out or crashed.")
    on_skip: list[str] = Field(default_factory=list, description="When a due run was skipped.")
    on_missed: list[str] = Field(default_factory=list, description="When a run was missed and waits for a decision.")


class Policies(_Part):
    """Every policy, with its default."""

    timeout: Annotated[Duration, at_least(timedelta(milliseconds=1))] = Field(
        default=timedelta(seconds=30), description="For one attempt of the action."
    )
    retries: Count = Field(default=2, ge=0, le=100, description="Attempts after the first.")
    retry_abandoned: Flag = Field(
        default=False, description="Whether a run whose process died at work is run again, as one of its retries."
    )
    retry_delay: Durations = Field(
        default=timedelta(seconds=5), description="Before each retry; a list gives one for each."
    )
    backoff: float = Field(default=1.0, ge=1, le=10, description="Each delay is the one before times this.")
    jitter: float = Field(default=0.0, ge=0, le=1, description="A delay may be longer by up to this share of it.")
    on_overlap: Overlap = Field(default="skip", description="When due while an earlier run has not ended.")
    on_missed: OnMissed = Field(default="ask", description="When found past its grace without a started run.")
    grace: Duration = Field(default=timedelta(seconds=60), description="How late a run may start.")
    stale_after: Duration | None = Field(
        default=None, description="How long past its due time a missed run is worth running; then it is skipped."
    )
    lookback: Duration = Field(default=timedelta(days=7), description="How far back missed runs are looked for.")
    dst: Dst = Field(default_factory=Dst)
    cooldown: Duration | None = Field(default=None, description="The least time from a run's end to the next start.")
    max_runs: Count | None = Field(default=None, ge=1, description="Runs after which the rule is done.")
    start_at: Instant | None = Field(default=None, description="Not before this instant.")
    end_at: Instant | None = Field(default=None, description="Not at or after this instant.")
    splay: Duration | None = Field(
        default=None, description="Start up to this much later, by an amount fixed for each rule."
    )
    conditions: Conditions = Field(default_factory=Conditions)
    notifications: Notifications = Field(default_factory=Notifications)
    session: str | None = Field(
        default=None,
        min_length=1,
        max_length=200,
        description="The session that it belongs to: a heartbeat of a session is woken for that session only.",
    )
    wake_heartbeat: Literal["now", "next", "off"] | None = Field(
        default=None,
        description="When a run has ended: run the heartbeats of its session at once, give their next runs the reason, "
        'or neither. Default: "next" for a rule with a session, else "off". A heartbeat wakes none.',
    )
    capabilities: list[str] = Field(default_factory=list, description="What the action may use beyond its own call.")
