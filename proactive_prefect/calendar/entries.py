"""What a calendar shows, as the API gives it. The names are those of scheduling runtime V2."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from ..errors import InputError
from ..ledger.tables import Outcome
from ..rules.models import Kind

Status = Outcome | Literal["scheduled", "running"]
"""What became of an occurrence; `scheduled`: due in the future; `running`: its run is at work."""

CalendarAction = Literal["approve_backfill_run", "reschedule", "delete_missed", "run_now", "pause", "resume"]
OF_MISSED: tuple[CalendarAction, ...] = ("approve_backfill_run", "reschedule", "delete_missed")
OF_RULES: tuple[CalendarAction, ...] = ("run_now", "pause", "resume")

FOLD_ABOVE = 12
"""A rule with more occurrences than these on one day (UTC) is shown as one row for that day."""
STASIS_LIMIT = 500
LONGEST = timedelta(days=400)
"""The longest time that may be asked for."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One row: an occurrence, or all of one rule's occurrences on one day (`always_running`)."""

    event_id: Annotated[str, Field(description="Stays the same from the future into the past.")]
    source: Annotated[Kind, Field(description="The rule's kind.")]
    source_ref: Annotated[str, Field(description="The rule's id.")]
    owner_id: str
    title: Annotated[str, Field(description="The rule's id, and its description if it has one. Text, never markup.")]
    status: Annotated[Status, Field(description="Of a day's row: what is gravest or nearest of what it holds.")]
    scheduled_at_utc: Annotated[datetime, Field(description="When it is due; of a day's row: its first.")]
    scheduled_until_utc: Annotated[datetime | None, Field(description="Of a day's row: its last.")] = None
    always_running: Annotated[bool, Field(description="A day's row: its rule is due very often.")] = False
    running: Annotated[bool, Field(description="A run of it is at work.")] = False
    counts: Annotated[dict[str, int] | None, Field(description="Of a day's row: how many of each status.")] = None
    cause: Annotated[str, Field(description="schedule, manual, or webhook.")] = "schedule"
    reason: Annotated[str, Field(description="What the run said; of skipped and of what will be: `code: text`.")] = ""
    run_id: Annotated[str | None, Field(description="The flow run in Prefect.")] = None
    started_at: datetime | None = None
    ended_at: datetime | None = None
    rescheduled_from: Annotated[str | None, Field(description="The event_id that this one was moved from.")] = None
    version: Annotated[int, Field(description="The projection's version when this row last changed; 0: foreseen.")] = 0
    last_event_at_utc: Annotated[datetime | None, Field(description="When something last became of it.")] = None
    actions: Annotated[tuple[CalendarAction, ...], Field(description="What may be asked of it now.")] = ()


class CalendarEvents(BaseModel):
    """A part of the calendar."""

    model_config = ConfigDict(revalidate_instances="never")

    version: int = Field(description="Rises by one with each change of the account; the same in every gateway.")
    last_event_at_utc: datetime | None = Field(description="When the latest event of the log happened.")
    last_event_seq: int
    at: datetime = Field(description="When this answer was made: what is later is foreseen.")
    start_utc: datetime
    end_utc: datetime
    events: list[Entry] = Field(description="Single occurrences, by due time.")
    always_running: list[Entry] = Field(description="One row a day for each rule that is due very often.")
    stasis_queue: list[Entry] = Field(
        description=f"What was missed and waits for somebody, whenever it was due; the oldest {STASIS_LIMIT}."
    )
    stasis_total: int
    running: list[Entry] = Field(description="What runs now, whenever it was due.")
    run_url: str | None = Field(description="Where Prefect's UI shows a run; {run_id} stands for its id.")


@dataclass(frozen=True, slots=True)
class Asked:
    """Which part of the calendar: from `start` (inclusive) to `end` (exclusive), and of what. Empty: all."""

    start: datetime
    end: datetime
    rules: frozenset[str] = field(default_factory=frozenset)
    kinds: frozenset[str] = field(default_factory=frozenset)
    statuses: frozenset[str] = field(default_factory=frozenset)

    @property
    def days(self) -> tuple[date, date]:
        """The days (UTC) that it touches: the first, and the one after the last. Raises InputError for too many."""
        if not (self.start.year > 1970 and self.end.year < 3000):
            raise InputError("that time is out of all calendars; allowed: instants from 1971 to 2999")
        if not timedelta(0) < self.end - self.start <= LONGEST:
            raise InputError(f"the end must be after the start; allowed: {LONGEST.days} days at most between them")
        last = self.end.astimezone(UTC) - timedelta(microseconds=1)
        return self.start.astimezone(UTC).date(), last.date() + timedelta(days=1)
