"""The inbox's table: accept, claim, settle. Every function runs in a session of `Ledger.write`, or of `Ledger.read`."""

from __future__ import annotations

import functools
import secrets
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal

from sqlalchemy import Select, Table, TextClause, bindparam, func, or_, select, text, tuple_, update
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from ..rules.coalesce import Coalesce
from .tables import Delivery

Status = Literal["waiting", "dispatched", "skipped", "joined", "undeliverable"]
Row = dict[str, Any]
"""A delivery's columns, by name."""

_TABLE: Table = Delivery.__table__  # type: ignore[attr-defined]  # SQLModel does not type it
_DEFAULTS: Row = {
    "fingerprint": None,
    "group_key": None,
    "joined_id": None,
    "take": None,
    "status": "waiting",
    "reason": "",
    "run_id": None,
    "holder": None,
    "attempts": 0,
    "settled_at": None,
    "replay_of": None,
    "traceparent": None,
    "erased_at": None,
}
_NEEDED = {name: value for name, value in _DEFAULTS.items() if value is not None}
_WAITING = col(Delivery.status) == "waiting"
# What tells one delivery from another, and what became of it, without what its caller sent, which may be large.
_ABOUT = [column for column in _TABLE.c if column.name not in ("headers", "payload")]

CLAIMED_CHARACTERS = 32 * 1024 * 1024
"""Of the payloads that are in a dispatcher's memory at once; one alone may be larger."""

# A group is closed, however busy its senders are, before its one payload is more than a run bears.
MOST_JOINED = 1_000
JOINED_CHARACTERS = 8 * 1024 * 1024

_CLAIMS = 0x696E626F78  # "inbox"


@dataclass(frozen=True)
class Settled:
    """What became of a delivery."""

    id: str
    status: Status
    run_id: str | None = None
    reason: str = ""


def new_id(at: datetime) -> str:
    """An id for a delivery: those of a later millisecond are greater, whoever makes them."""
    return f"{int(at.timestamp() * 1000):012x}{secrets.token_hex(6)}"


@functools.cache
def _insert(named: frozenset[str]) -> TextClause:
    """As text, since SQLAlchemy would compile its own form of ON CONFLICT anew for each commit."""
    columns = [column for column in _TABLE.c if column.name in named]
    names = [column.name for column in columns]
    return text(
        f"INSERT INTO deliveries ({', '.join(names)}) "  # noqa: S608 - names of our own columns
        f"VALUES ({', '.join(f':{name}' for name in names)}) ON CONFLICT (rule_id, delivery_id) DO NOTHING"
    ).bindparams(*(bindparam(column.name, type_=column.type) for column in columns))


def make(row: Row) -> Delivery:
    """The delivery of a row that was just inserted."""
    return Delivery(**{**_DEFAULTS, **row})


async def insert_new(
    session: AsyncSession, rows: Sequence[Row], same_within: Mapping[tuple[str, str], timedelta]
) -> dict[str, Row]:
    """Insert the deliveries that have not come before; for each other one, by its `id`, the one that came first.

    `same_within` has the window in which an equal call counts as a repeat, by rule and fingerprint. Of those that came
    first, headers and payload are not read.
    """
    repeats = await _equal_calls(session, rows, same_within)
    # In one order everywhere, so that two gateways that are given the same never wait for each other.
    fresh = sorted(
        (row for row in rows if row["id"] not in repeats), key=lambda row: (row["rule_id"], row["delivery_id"])
    )
    if not fresh:
        return repeats
    # Without the columns that all of them leave null: each costs time to bind.
    named = {name for row in fresh for name, value in row.items() if value is not None} | _NEEDED.keys()
    made = [{name: row.get(name, _DEFAULTS.get(name)) for name in named} for row in fresh]
    done = await session.execute(_insert(frozenset(named)), made)
    if done.rowcount == len(fresh):  # type: ignore[attr-defined]
        return repeats
    inserted = set(
        (
            await session.scalars(select(col(Delivery.id)).where(col(Delivery.id).in_([row["id"] for row in fresh])))
        ).all()
    )
    rest = [row for row in fresh if row["id"] not in inserted]
    if rest:
        keys = [(row["rule_id"], row["delivery_id"]) for row in rest]
        query = select(*_ABOUT).where(tuple_(col(Delivery.rule_id), col(Delivery.delivery_id)).in_(keys))
        first = {(one["rule_id"], one["delivery_id"]): one for one in await _rows(session, query)}
        repeats |= {row["id"]: first[row["rule_id"], row["delivery_id"]] for row in rest}
    return repeats


async def _equal_calls(
    session: AsyncSession, rows: Sequence[Row], same_within: Mapping[tuple[str, str], timedelta]
) -> dict[str, Row]:
    """The earlier delivery for each row that has a fingerprint which came within its window."""
    marked = [row for row in rows if row.get("fingerprint")]
    if not marked:
        return {}
    if session.get_bind().dialect.name == "postgresql":
        # Who else accepts an equal call waits until this one is committed; on SQLite there is one writer anyway.
        for lock in sorted({zlib.crc32(f"{row['rule_id']} {row['fingerprint']}".encode()) for row in marked}):
            await session.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": lock})
    keys = {(row["rule_id"], row["fingerprint"]) for row in marked}
    # What is older is in nobody's window, however many equal ones were kept.
    since = min(row["received_at"] for row in marked) - max(same_within[key] for key in keys)
    equal = (
        select(
            col(Delivery.id),
            func.row_number()
            .over(
                partition_by=(col(Delivery.rule_id), col(Delivery.fingerprint)),
                order_by=col(Delivery.received_at).desc(),
            )
            .label("place"),
        )
        .where(
            col(Delivery.fingerprint).is_not(None),
            tuple_(col(Delivery.rule_id), col(Delivery.fingerprint)).in_(list(keys)),
            col(Delivery.received_at) > since,
        )
        .subquery()
    )
    query = select(*_ABOUT).join(equal, col(Delivery.id) == equal.c.id).where(equal.c.place == 1)
    latest = {(one["rule_id"], one["fingerprint"]): one for one in await _rows(session, query)}
    repeats: dict[str, Row] = {}
    for row in marked:
        key = (row["rule_id"], row["fingerprint"])
        first = latest.get(key)
        if first is not None and row["received_at"] - first["received_at"] < same_within[key]:
            repeats[row["id"]] = first
        else:
            latest[key] = row
    return repeats


async def _rows(session: AsyncSession, query: Select[Any]) -> list[Row]:
    return [dict(one) for one in (await session.execute(query)).mappings()]


async def claim(session: AsyncSession, holder: str, now: datetime, until: datetime, limit: int) -> list[Delivery]:
    """Take up to `limit` deliveries that are anybody's now, the longest due first, until `until`.

    Fewer where their payloads are large: they are all in memory at once.
    """
    due = (
        select(col(Delivery.id), func.length(col(Delivery.payload)))
        .where(_WAITING, col(Delivery.due_at) <= now)
        .order_by(col(Delivery.due_at), col(Delivery.id))
        .limit(limit)
        .with_for_update(skip_locked=True)
    )
    ids: list[str] = []
    size = 0
    for one, length in (await session.execute(due)).tuples():
        size += length
        if ids and size > CLAIMED_CHARACTERS:
            break
        ids.append(one)
    if not ids:
        return []
    taken = {"holder": holder, "due_at": until, "attempts": col(Delivery.attempts) + 1}
    await session.execute(update(Delivery).where(col(Delivery.id).in_(ids)).values(taken))
    query = select(Delivery).where(col(Delivery.id).in_(ids)).order_by(col(Delivery.id))
    return list((await session.scalars(query.execution_options(populate_existing=True))).all())


async def join_group(session: AsyncSession, one: Delivery, now: datetime, coalesce: Coalesce) -> Delivery | None:
    """Close the group of a claimed delivery, if it has been quiet for its window, waited long enough, or is full.

    Returns the first of the group, claimed, which stands for all of them from now on, and gets what the rule says now;
    None where more may come: then none of them is held, until that time. What a full group has no room for begins the
    next one. Call `lock_groups` before the claim.
    """
    its_group = (
        _WAITING,
        col(Delivery.rule_id) == one.rule_id,
        col(Delivery.group_key) == one.group_key,
        col(Delivery.joined_id).is_(None),
    )
    # No payload is read: of a group that only waits there is no end to what it may hold.
    members = select(col(Delivery.id), col(Delivery.received_at), func.length(col(Delivery.payload)))
    found = (await session.execute(members.where(*its_group).order_by(col(Delivery.id)).limit(MOST_JOINED))).all()
    if not found:  # another of them has closed it, a moment ago
        return None
    ids: list[str] = []
    size = 0
    for member, _, length in found:
        size += length
        if ids and size > JOINED_CHARACTERS:
            break
        ids.append(member)
    received = [at for _, at, _ in found]
    full = len(ids) < len(found) or len(found) == MOST_JOINED
    due = min(min(received) + coalesce.max_wait, max(received) + coalesce.window)
    change = update(Delivery).execution_options(synchronize_session=False)
    if not full and now < due:
        await session.execute(change.where(*its_group).values(holder=None, due_at=due))
        return None
    closed = {"joined_id": ids[0], "take": coalesce.take}
    joined = {**closed, "status": "joined", "settled_at": now, "holder": None}
    await session.execute(change.where(*its_group, col(Delivery.id).in_(ids[1:])).values(joined))
    claimed = {**closed, "holder": one.holder, "due_at": one.due_at}
    await session.execute(change.where(col(Delivery.id) == ids[0]).values(claimed))
    # Those of the claim that are left: whether they, too, have waited long enough, the next look tells.
    await session.execute(change.where(*its_group, col(Delivery.holder) == one.holder).values(holder=None, due_at=now))
    return await session.get(Delivery, ids[0], populate_existing=True)


async def lock_groups(session: AsyncSession) -> None:
    """Become the one who claims, until the transaction ends; on SQLite who writes is that anyway."""
    if session.get_bind().dialect.name == "postgresql":
        await session.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _CLAIMS})


async def payload_of(session: AsyncSession, delivery: Delivery) -> str:
    """What the run of a delivery gets: its payload, or what is taken of all that it stands for.

    What is taken was settled when the group was closed. One that joined others gets, by itself, what it would have got
    if it had been alone. What was erased is in nothing.
    """
    if delivery.take is None:
        return delivery.payload
    query = (
        select(col(Delivery.payload))
        .where(or_(col(Delivery.id) == delivery.id, col(Delivery.joined_id) == delivery.id))
        .where(col(Delivery.erased_at).is_(None))
    )
    if delivery.take == "last":
        last = (await session.scalars(query.order_by(col(Delivery.id).desc()).limit(1))).first()
        return delivery.payload if last is None else last
    return f"[{','.join((await session.scalars(query.order_by(col(Delivery.id)))).all())}]"


async def next_due(session: AsyncSession) -> datetime | None:
    """When the first waiting delivery is anybody's; None if none waits."""
    return (await session.scalars(select(func.min(col(Delivery.due_at))).where(_WAITING))).one()


async def put_off(session: AsyncSession, ids: Iterable[str], until: datetime, *, holder: str) -> None:
    """Give back what `holder` has; anybody's again at `until`."""
    await session.execute(
        update(Delivery)
        .where(col(Delivery.id).in_(list(ids)), _WAITING, col(Delivery.holder) == holder)
        .values(holder=None, due_at=until)
    )


async def free(session: AsyncSession, holders: Sequence[str], now: datetime) -> int:
    """Give back what these holders, whose processes are gone, have; how many deliveries."""
    done = await session.execute(
        update(Delivery).where(_WAITING, col(Delivery.holder).in_(holders)).values(holder=None, due_at=now)
    )
    return int(done.rowcount)  # type: ignore[attr-defined]


async def holders(session: AsyncSession) -> Sequence[str]:
    """Who has taken deliveries that still wait."""
    query = select(col(Delivery.holder)).where(_WAITING, col(Delivery.holder).is_not(None)).distinct()
    return [found for found in (await session.scalars(query)).all() if found]


async def settle(session: AsyncSession, settled: Iterable[Settled], now: datetime) -> None:
    """Write down what became of deliveries; what was written first stands."""
    statement = (
        update(_TABLE)
        .where(_TABLE.c.id == bindparam("the_id"), _TABLE.c.status == "waiting")
        .values(
            status=bindparam("the_status"),
            run_id=bindparam("the_run"),
            reason=bindparam("the_reason"),
            settled_at=bindparam("now"),
            holder=None,
        )
    )
    rows = [
        {"the_id": one.id, "the_status": one.status, "the_run": one.run_id, "the_reason": one.reason, "now": now}
        for one in settled
    ]
    if rows:
        await (await session.connection()).execute(statement, rows)


async def read_delivery(session: AsyncSession, delivery_id: str) -> Delivery | None:
    """The delivery of that `id`."""
    return await session.get(Delivery, delivery_id, populate_existing=True)


async def what_became(session: AsyncSession, delivery_id: str) -> Settled | None:
    """The status of the delivery of that `id`, and its run; of one that joined others, theirs. Reads no payload."""
    wanted = delivery_id
    while True:
        query = select(col(Delivery.status), col(Delivery.run_id), col(Delivery.reason), col(Delivery.joined_id)).where(
            col(Delivery.id) == wanted
        )
        found = (await session.execute(query)).first()
        if found is None:
            return None
        status, run_id, reason, joined_id = found
        if status != "joined" or joined_id is None:
            return Settled(delivery_id, status, run_id, reason)
        wanted = joined_id
