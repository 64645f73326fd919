"""The event log: what happened, once each, in one order, with no gap in `seq`.

Who appends holds the log's head locked until its transaction ends, so numbers are given in the order of commits: a
reader who has seen `seq` n has seen all before it, and a transaction that fails gives its numbers back. A fact's `key`
keeps it from being logged twice. The oldest entries are taken away after the retention; what is left has no gap.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import delete, func, select, update
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from ..rules.durations import parse_duration
from ..settings import Settings
from .columns import clean, clean_json
from .db import Ledger
from .tables import Event, LogHead
from .tallies import tally_events

_PAGE = 500
_LOCKED = "the log's head"
_LOOK = 0.5  # seconds between two looks for what other processes have written


@dataclass(frozen=True)
class NewEvent:
    """A fact to be logged: the envelope of every event, without its `seq`. `key` names the fact, whoever tells it."""

    key: str
    event_type: str
    source: str
    source_ref: str
    owner_id: str
    occurred_at_utc: datetime
    status: str
    payload: dict[str, Any] = field(default_factory=dict)
    session_id: str | None = None
    channel: str | None = None


@dataclass(frozen=True)
class Head:
    """How far the log goes: `oldest` is the first `seq` that is kept (`seq` + 1 if none is); `log_id` names the log.

    `revision` is that of the account itself.
    """

    seq: int
    oldest: int
    emitted: int
    log_id: str
    revision: int


async def lock_log(session: AsyncSession) -> LogHead:
    """Become the one who appends, until the transaction ends. Take this lock before any other in the ledger."""
    # A session of `Ledger.write` is one transaction: what it has locked stays locked.
    head = session.info.get(_LOCKED)
    if head is None:
        head = session.info[_LOCKED] = (await session.scalars(select(LogHead).with_for_update())).one()
    assert isinstance(head, LogHead)
    return head


async def append(session: AsyncSession, events: Iterable[NewEvent]) -> list[Event]:
    """Log those events that are not logged yet, in this order; returns them. In a session of `Ledger.write`."""
    fresh = {clean(event.key): event for event in reversed(list(events))}
    if not fresh:
        return []
    head = await lock_log(session)
    known = set((await session.scalars(select(col(Event.key)).where(col(Event.key).in_(fresh)))).all())
    logged = []
    for key, event in reversed(fresh.items()):
        if key in known:
            continue
        head.seq += 1
        entry = Event(
            seq=head.seq,
            key=key,
            event_type=event.event_type,
            source=event.source,
            source_ref=event.source_ref,
            owner_id=event.owner_id,
            session_id=event.session_id,
            channel=event.channel,
            occurred_at_utc=event.occurred_at_utc.astimezone(UTC),
            status=event.status,
            payload=clean_json(event.payload),
            recorded_at=datetime.now(UTC),
        )
        session.add(entry)
        logged.append(entry)
    await session.flush()
    tally_events(session, logged)
    return logged


async def read_head(session: AsyncSession) -> Head:
    """How far the log goes."""
    head = (await session.scalars(select(LogHead).execution_options(populate_existing=True))).one()
    oldest = (await session.scalars(select(func.min(col(Event.seq))))).one()
    return Head(head.seq, head.seq + 1 if oldest is None else oldest, head.emitted, head.log_id, head.revision)


async def read_events(
    session: AsyncSession, *, since_seq: int = 0, limit: int = _PAGE, rule_id: str | None = None
) -> Sequence[Event]:
    """The first `limit` events after `since_seq`, in order; of one rule only, if given."""
    query = select(Event).where(col(Event.seq) > since_seq).order_by(col(Event.seq)).limit(limit)
    if rule_id is not None:
        query = query.where(col(Event.source_ref) == rule_id)
    return (await session.scalars(query)).all()


async def last_events(session: AsyncSession, count: int, *, rule_id: str | None = None) -> Sequence[Event]:
    """The latest `count` events, in order; of one rule only, if given."""
    query = select(Event).order_by(col(Event.seq).desc()).limit(count)
    if rule_id is not None:
        query = query.where(col(Event.source_ref) == rule_id)
    return list(reversed((await session.scalars(query)).all()))


async def read_events_of_run(session: AsyncSession, rule_id: str, run_ids: Sequence[str]) -> Sequence[Event]:
    """The events about these runs of the rule, in order, at most the first 500."""
    query = (
        select(Event)
        .where(col(Event.source_ref) == rule_id, col(Event.payload)["run_id"].as_string().in_(run_ids))
        .order_by(col(Event.seq))
        .limit(_PAGE)
    )
    return (await session.scalars(query)).all()


async def follow(
    ledger: Ledger, since_seq: int, *, ended: Callable[[], bool] = lambda: False
) -> AsyncIterator[Sequence[Event]]:
    """The events after `since_seq`, in batches as they come, of whichever process; an empty one when none did for a
    moment, so that the reader can say that it is alive. Ends when `ended` says so.
    """
    while not ended():
        async with ledger.read() as session:
            events = await read_events(session, since_seq=since_seq)
        if not events:
            await ledger.wait_for_write(_LOOK)
            yield events
            continue
        since_seq = events[-1].seq
        yield events


async def prune(session: AsyncSession, before: datetime) -> int:
    """Take away the oldest events, as far as they were logged before `before`; how many. Emitted ones only."""
    head = await lock_log(session)
    kept = (await session.scalars(select(func.min(col(Event.seq))).where(col(Event.recorded_at) >= before))).one()
    last = min(head.emitted, head.seq if kept is None else kept - 1)
    return int((await session.execute(delete(Event).where(col(Event.seq) <= last))).rowcount)  # type: ignore[attr-defined]


async def mark_emitted(session: AsyncSession, seq: int) -> None:
    """Note that Prefect has been given all events up to `seq`."""
    await session.execute(update(LogHead).where(col(LogHead.emitted) < seq).values(emitted=seq))


def retention_start(settings: Settings, now: datetime) -> datetime:
    """What was before this instant is not kept in the log."""
    return now - parse_duration(settings.event_retention)
