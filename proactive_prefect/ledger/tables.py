"""The ledger's tables. Every change to them is a new file in `migrations/versions/`; a test compares the two."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal, get_args

from sqlalchemy import JSON, BigInteger, Column, Float, ForeignKey, Index, Integer, Text, UniqueConstraint, text
from sqlmodel import Field, SQLModel

from .columns import CleanText, Utc

Outcome = Literal[
    "expected",  # due, and nothing has become of it yet; its run may be at work (`running`)
    "completed",
    "quiet",
    "failed",
    "timed_out",
    "cancelled",  # somebody ended its run after the action had begun
    "skipped",  # a deliberate non-run; `reason` is "code: text"
    "missed",  # past its grace without a started run: waits for somebody to decide
    "approved",  # was missed; runs soon, for its original time
    "rescheduled",  # was missed; a new occurrence points back to it
    "deleted",  # was missed, and will never run
    "unknown",  # its process or machine died after the action could begin, or its run was deleted while it ran
]
OUTCOMES: tuple[Outcome, ...] = get_args(Outcome)
OPEN: tuple[Outcome, ...] = ("expected", "missed", "approved")
"""The outcomes of an occurrence that something must still become of."""

ResolutionAction = Literal["approve_backfill_run", "reschedule", "delete_missed"]

# SQLite counts only INTEGER PRIMARY KEY up by itself.
_BIG_ID = BigInteger().with_variant(Integer, "sqlite")


def _index_of_some(name: str, *columns: str, where: str) -> Index:
    return Index(name, *columns, postgresql_where=text(where), sqlite_where=text(where))


class Occurrence(SQLModel, table=True):
    """One due moment of one rule, and what became of it: computed from its runs and its resolution, in one place.

    `key` is "due:" and the instant in UTC, or "delivery:" and the delivery's id; unique together with the rule.
    `origin_id` is the occurrence that this one was rescheduled from.
    """

    __tablename__ = "occurrences"
    __table_args__ = (
        UniqueConstraint("rule_id", "key", name="uq_occurrences_rule_id_key"),
        Index("ix_occurrences_rule_id_due", "rule_id", "due"),
        Index("ix_occurrences_due", "due"),
        Index("ix_occurrences_revision", "revision"),
        # Of all rows, though few are looked for: SQLite uses an index of some only where a query says which without
        # parameters, and with a million rows a look at all of them takes a second.
        Index("ix_occurrences_outcome", "outcome", "due"),
        Index(
            "ix_occurrences_running",
            "running",
            postgresql_where=text("running"),
            sqlite_where=text("running = 1"),
        ),
    )
    id: int | None = Field(default=None, sa_column=Column(_BIG_ID, primary_key=True, autoincrement=True))
    rule_id: str = Field(sa_column=Column(CleanText, nullable=False))
    kind: str = Field(sa_column=Column(CleanText, nullable=False))
    owner_id: str = Field(sa_column=Column(CleanText, nullable=False))
    session_id: str | None = Field(default=None, sa_column=Column(CleanText))
    key: str = Field(sa_column=Column(CleanText, nullable=False))
    due: datetime = Field(sa_column=Column(Utc, nullable=False))
    cause: str = Field(sa_column=Column(CleanText, nullable=False))
    """schedule, manual, or webhook."""
    outcome: str = Field(default="expected", sa_column=Column(CleanText, nullable=False))
    reason: str = Field(default="", sa_column=Column(CleanText, nullable=False))
    running: bool = False
    run_id: str | None = Field(default=None, sa_column=Column(CleanText))
    """The flow run that decided the outcome, or will."""
    started_at: datetime | None = Field(default=None, sa_column=Column(Utc))
    ended_at: datetime | None = Field(default=None, sa_column=Column(Utc))
    recorded_at: datetime = Field(sa_column=Column(Utc, nullable=False))
    revision: int = Field(default=0, sa_column=Column(BigInteger, nullable=False, server_default="0"))
    """What `LogHead.revision` became when this was last changed: what has changed since n is what is above n."""
    skipped_as: str | None = Field(default=None, sa_column=Column(CleanText))
    """Where it was skipped before there was a run of it: "code: text"."""
    origin_id: int | None = Field(
        default=None, sa_column=Column(_BIG_ID, ForeignKey("occurrences.id", name="fk_occurrences_origin_id"))
    )


class Run(SQLModel, table=True):
    """A flow run of an occurrence: a summary of its states that comes out the same in whatever order they are heard.

    Each group of columns keeps the latest (or the first) state of its sort, by Prefect's own time stamps.
    """

    __tablename__ = "runs"
    __table_args__ = (Index("ix_runs_occurrence_id", "occurrence_id"),)
    run_id: str = Field(sa_column=Column(CleanText, primary_key=True))
    occurrence_id: int = Field(
        sa_column=Column(_BIG_ID, ForeignKey("occurrences.id", name="fk_runs_occurrence_id"), nullable=False)
    )
    name: str = Field(default="", sa_column=Column(CleanText, nullable=False))
    deployment_id: str | None = Field(default=None, sa_column=Column(CleanText))
    last_state_id: str | None = Field(default=None, sa_column=Column(CleanText))
    last_type: str | None = Field(default=None, sa_column=Column(CleanText))
    last_name: str | None = Field(default=None, sa_column=Column(CleanText))
    last_at: datetime | None = Field(default=None, sa_column=Column(Utc))
    ended_state_id: str | None = Field(default=None, sa_column=Column(CleanText))
    ended_type: str | None = Field(default=None, sa_column=Column(CleanText))
    ended_name: str | None = Field(default=None, sa_column=Column(CleanText))
    ended_message: str | None = Field(default=None, sa_column=Column(CleanText))
    ended_at: datetime | None = Field(default=None, sa_column=Column(Utc))
    held_message: str | None = Field(default=None, sa_column=Column(CleanText))
    held_at: datetime | None = Field(default=None, sa_column=Column(Utc))
    first_running_at: datetime | None = Field(default=None, sa_column=Column(Utc))
    last_running_at: datetime | None = Field(default=None, sa_column=Column(Utc))
    deleted_at: datetime | None = Field(default=None, sa_column=Column(Utc))
    """When it was noticed that Prefect has it no more."""


class Resolution(SQLModel, table=True):
    """Who decided what about a missed occurrence, and when. There is one for an occurrence: the first."""

    __tablename__ = "resolutions"
    __table_args__ = (UniqueConstraint("occurrence_id", name="uq_resolutions_occurrence_id"),)
    id: int | None = Field(default=None, sa_column=Column(_BIG_ID, primary_key=True, autoincrement=True))
    occurrence_id: int = Field(
        sa_column=Column(_BIG_ID, ForeignKey("occurrences.id", name="fk_resolutions_occurrence_id"), nullable=False)
    )
    action: str = Field(sa_column=Column(CleanText, nullable=False))
    resolved_by: str = Field(sa_column=Column(CleanText, nullable=False))
    """A principal; "prefect" for whoever did it in Prefect's own UI, which keeps no names."""
    via: str = Field(sa_column=Column(CleanText, nullable=False))
    """api, cli, page, rule (its on_missed), or prefect."""
    at: datetime = Field(sa_column=Column(Utc, nullable=False))
    run_id: str | None = Field(default=None, sa_column=Column(CleanText))
    target: datetime | None = Field(default=None, sa_column=Column(Utc))
    """Where `action` is reschedule: to when."""
    carried_at: datetime | None = Field(default=None, sa_column=Column(Utc))
    """When it was carried out in Prefect; None while it waits for that, an approved run for its turn."""


class LeftOut(SQLModel, table=True):
    """Due times of a rule that were missed and not looked into, from `since` up to `until`: too many, or too old."""

    __tablename__ = "left_out"
    rule_id: str = Field(sa_column=Column(CleanText, primary_key=True))
    since: datetime = Field(sa_column=Column(Utc, primary_key=True))
    until: datetime = Field(sa_column=Column(Utc, nullable=False))
    count: int = Field(sa_column=Column(Integer, nullable=False))
    reason: str = Field(sa_column=Column(CleanText, nullable=False))
    recorded_at: datetime = Field(sa_column=Column(Utc, nullable=False))


class Event(SQLModel, table=True):
    """One entry of the event log. `seq` rises by one, in the order of commits; `key` names the fact, once."""

    __tablename__ = "events"
    __table_args__ = (
        UniqueConstraint("key", name="uq_events_key"),
        Index("ix_events_source_ref", "source_ref", "seq"),
        Index("ix_events_recorded_at", "recorded_at"),
    )
    seq: int = Field(sa_column=Column(_BIG_ID, primary_key=True, autoincrement=False))
    key: str = Field(sa_column=Column(CleanText, nullable=False))
    event_type: str = Field(sa_column=Column(CleanText, nullable=False))
    source: str = Field(sa_column=Column(CleanText, nullable=False))
    source_ref: str = Field(sa_column=Column(CleanText, nullable=False))
    owner_id: str = Field(sa_column=Column(CleanText, nullable=False))
    session_id: str | None = Field(default=None, sa_column=Column(CleanText))
    channel: str | None = Field(default=None, sa_column=Column(CleanText))
    occurred_at_utc: datetime = Field(sa_column=Column(Utc, nullable=False))
    status: str = Field(sa_column=Column(CleanText, nullable=False))
    payload: dict[str, Any] = Field(default_factory=dict, sa_column=Column(JSON, nullable=False))
    recorded_at: datetime = Field(sa_column=Column(Utc, nullable=False))


class Delivery(SQLModel, table=True):
    """One verified call of a webhook, as it was accepted: the inbox. Never lost, and settled once.

    `delivery_id` is the sender's own, unique together with the rule; `id` is ours, and rises with time. A waiting one
    is anybody's from `due_at` on: whoever takes it, as `holder`, puts that off for as long as the work may take.
    """

    __tablename__ = "deliveries"
    __table_args__ = (
        UniqueConstraint("rule_id", "delivery_id", name="uq_deliveries_rule_id_delivery_id"),
        _index_of_some("ix_deliveries_waiting", "due_at", where="status = 'waiting'"),
        _index_of_some(
            "ix_deliveries_fingerprint", "rule_id", "fingerprint", "received_at", where="fingerprint IS NOT NULL"
        ),
        _index_of_some("ix_deliveries_group", "rule_id", "group_key", where="group_key IS NOT NULL"),
        _index_of_some("ix_deliveries_joined_id", "joined_id", where="joined_id IS NOT NULL"),
        Index("ix_deliveries_received_at", "received_at"),
    )
    id: str = Field(sa_column=Column(Text, primary_key=True))
    rule_id: str = Field(sa_column=Column(Text, nullable=False))
    delivery_id: str = Field(sa_column=Column(Text, nullable=False))
    received_at: datetime = Field(sa_column=Column(Utc, nullable=False))
    headers: str = Field(sa_column=Column(Text, nullable=False))
    """A JSON object, by lower-case name, without those that let their owner in."""
    payload: str = Field(sa_column=Column(Text, nullable=False))
    """What the run gets: JSON text."""
    fingerprint: str | None = Field(default=None, sa_column=Column(Text))
    """Of a call without an id: by what an equal one is known."""
    group_key: str | None = Field(default=None, sa_column=Column(Text))
    """Of a webhook that coalesces: which deliveries belong together."""
    joined_id: str | None = Field(default=None, sa_column=Column(Text))
    """The delivery whose run this one is part of; its own id for the one that stands for the others."""
    take: str | None = Field(default=None, sa_column=Column(Text))
    """Of a group that was closed: all or last, as its rule said then, whatever the rule says by now."""
    status: str = Field(default="waiting", sa_column=Column(Text, nullable=False))
    """waiting, dispatched (it has its run), skipped (its run says why), joined (it is part of another one's run), or
    undeliverable (`reason` says why it can have no run)."""
    reason: str = Field(default="", sa_column=Column(CleanText, nullable=False))
    """For a skip "code: text", also while it waits for its record in Prefect."""
    run_id: str | None = Field(default=None, sa_column=Column(Text))
    holder: str | None = Field(default=None, sa_column=Column(Text))
    traceparent: str | None = Field(default=None, sa_column=Column(Text))
    """The trace of the call, which its run goes on with."""
    due_at: datetime = Field(sa_column=Column(Utc, nullable=False))
    attempts: int = Field(default=0, sa_column=Column(Integer, nullable=False))
    settled_at: datetime | None = Field(default=None, sa_column=Column(Utc))
    replay_of: str | None = Field(default=None, sa_column=Column(Text))
    """The `id` of the delivery that somebody had replayed."""
    erased_at: datetime | None = Field(default=None, sa_column=Column(Utc))
    """When its headers and its payload were taken away."""


class LogHead(SQLModel, table=True):
    """One row: how far the event log has come. Whoever holds it locked is the one who appends."""

    __tablename__ = "log_head"
    id: int = Field(sa_column=Column(Integer, primary_key=True, autoincrement=False))
    log_id: str = Field(sa_column=Column(CleanText, nullable=False))
    """Names this log for ever; with `seq` it makes the ids of the events that Prefect is given."""
    seq: int = Field(sa_column=Column(BigInteger, nullable=False))
    emitted: int = Field(sa_column=Column(BigInteger, nullable=False))
    """All up to this `seq` have been given to Prefect."""
    revision: int = Field(default=0, sa_column=Column(BigInteger, nullable=False, server_default="0"))
    """Rises by one with each change of an occurrence or of a rule, also with those that no event tells of."""


class RuleVersion(SQLModel, table=True):
    """A rule as it was deployed from `since` on, until the next version of the same rule."""

    __tablename__ = "rule_versions"
    __table_args__ = (UniqueConstraint("rule_id", "since", name="uq_rule_versions_rule_id_since"),)
    id: int | None = Field(default=None, sa_column=Column(_BIG_ID, primary_key=True, autoincrement=True))
    rule_id: str = Field(sa_column=Column(CleanText, nullable=False))
    kind: str = Field(sa_column=Column(CleanText, nullable=False))
    since: datetime = Field(sa_column=Column(Utc, nullable=False))
    status: str = Field(sa_column=Column(CleanText, nullable=False))
    """active, paused (by an operator, in Prefect), disabled (in the rules file), deleted, or unseen."""
    deployment_id: str | None = Field(default=None, sa_column=Column(CleanText))
    snapshot: str = Field(sa_column=Column(CleanText, nullable=False))
    """The rule, as `rules.models.to_snapshot` writes it."""


class CalendarChange(SQLModel, table=True):
    """A change of the calendar that somebody was shown, and what became of it."""

    __tablename__ = "calendar_changes"
    __table_args__ = (Index("ix_calendar_changes_expires_at", "expires_at"),)
    id: str = Field(sa_column=Column(CleanText, primary_key=True))
    rule_id: str = Field(sa_column=Column(CleanText, nullable=False))
    asked: dict[str, Any] = Field(sa_column=Column(JSON, nullable=False))
    basis: str = Field(sa_column=Column(CleanText, nullable=False))
    """What the preview was made of: where it is another by now, the preview is stale."""
    status: str = Field(sa_column=Column(CleanText, nullable=False))
    """previewed; confirmed: decided, and Prefect may not have been told all of it; done; lapsed: it could not be."""
    created_at: datetime = Field(sa_column=Column(Utc, nullable=False))
    created_by: str = Field(sa_column=Column(CleanText, nullable=False))
    expires_at: datetime = Field(sa_column=Column(Utc, nullable=False))
    confirmed_at: datetime | None = Field(default=None, sa_column=Column(Utc))
    confirmed_by: str | None = Field(default=None, sa_column=Column(CleanText))
    run_id: str | None = Field(default=None, sa_column=Column(CleanText))
    """The run that stands for a moved occurrence, or that was dropped."""


class Lease(SQLModel, table=True):
    """Work that one process at a time does, until `until`, which it puts off for as long as it lives."""

    __tablename__ = "leases"
    name: str = Field(sa_column=Column(CleanText, primary_key=True))
    holder: str = Field(sa_column=Column(CleanText, nullable=False))
    until: datetime = Field(sa_column=Column(Utc, nullable=False))


class Cursor(SQLModel, table=True):
    """How far a reader of something outside has come."""

    __tablename__ = "cursors"
    name: str = Field(sa_column=Column(CleanText, primary_key=True))
    at: datetime = Field(sa_column=Column(Utc, nullable=False))


class Tally(SQLModel, table=True):
    """A running total, as `tallies.py` keeps it."""

    __tablename__ = "tallies"
    measure: str = Field(sa_column=Column(CleanText, primary_key=True))
    kind: str = Field(sa_column=Column(CleanText, primary_key=True))
    label: str = Field(sa_column=Column(CleanText, primary_key=True))
    value: float = Field(sa_column=Column(Float(53), nullable=False))


class Wake(SQLModel, table=True):
    """A reason to wake one heartbeat rule, kept until a run that has been told it began."""

    __tablename__ = "wakes"
    __table_args__ = (
        UniqueConstraint("rule_id", "key", name="uq_wakes_rule_id_key"),
        Index(
            "ix_wakes_waiting",
            "rule_id",
            postgresql_where=text("delivered_at IS NULL"),
            sqlite_where=text("delivered_at IS NULL"),
        ),
    )
    id: int | None = Field(default=None, sa_column=Column(_BIG_ID, primary_key=True, autoincrement=True))
    rule_id: str = Field(sa_column=Column(CleanText, nullable=False))
    """The heartbeat rule to be woken."""
    key: str = Field(sa_column=Column(CleanText, nullable=False))
    """Names the wake, whoever tells it how often: it is asked for once for each rule."""
    mode: str = Field(sa_column=Column(CleanText, nullable=False))
    """now, or next."""
    reason: str = Field(sa_column=Column(CleanText, nullable=False))
    session_id: str | None = Field(default=None, sa_column=Column(CleanText))
    asked_at: datetime = Field(sa_column=Column(Utc, nullable=False))
    tried_now: bool = Field(default=False)
    """A run of its own has been asked for: from then on it waits as `next` does."""
    run_id: str | None = Field(default=None, sa_column=Column(CleanText))
    """The run that carries it."""
    delivered_at: datetime | None = Field(default=None, sa_column=Column(Utc))
    """When that run began, or when it was given up: the rule is gone."""
