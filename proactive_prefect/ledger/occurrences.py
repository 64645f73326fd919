"""The account of occurrences: states are applied to it, in any order and any number of times, with the same result.

Everything here runs in a session of `Ledger.write`, which takes the log's lock first: on both databases one writer of
the account at a time, so what is read in a transaction is true until its end.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

from sqlalchemy import delete, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from .lifecycle import of_deletion, of_return, of_state, scheduled
from .log import NewEvent, append, lock_log, read_events_of_run
from .outcomes import RESCHEDULED, RunRef, StateFact, is_over, join, join_deletion, judge, occurrence_key
from .resolutions import resolution_of, resolve
from .tables import OPEN, Occurrence, Resolution, Run
from .tallies import tally_outcome
from .wakes import wake_after

_PAGE = 500  # PostgreSQL takes 32,767 parameters in a statement


async def apply(session: AsyncSession, ref: RunRef, facts: Iterable[StateFact], *, log_since: datetime) -> Occurrence:
    """Apply states of a run to the account, and log what they mean; what is known already changes nothing.

    States from before `log_since` (the start of the log's retention) are applied, and not logged.
    """
    await lock_log(session)
    occurrence, run, is_new = await _row(session, ref)
    events: list[NewEvent | None] = [scheduled(ref)] if is_new and ref.created >= log_since else []
    ordered = sorted(facts, key=lambda fact: (fact.at, fact.state_id))
    for fact in ordered:
        join(run, fact)
        if fact.at >= log_since:
            events.append(of_state(ref, fact))
    logged = await append(session, [event for event in events if event is not None])
    await wake_after(session, logged)
    for fact in ordered:
        if fact.resolves is not None:
            await resolve(
                session,
                occurrence,
                fact.resolves,
                by="prefect",
                via="prefect",
                at=fact.at,
                run_id=ref.run_id,
                log=fact.at >= log_since,
            )
    await settle(session, occurrence)
    return occurrence


async def apply_deletion(session: AsyncSession, run_id: str, at: datetime, *, log_since: datetime) -> None:
    """Prefect has the run no more, as was noticed at `at`: a held one was so decided on."""
    await lock_log(session)
    run = await session.get(Run, run_id)
    if run is None or run.deleted_at is not None or is_over(run):
        return
    join_deletion(run, at)
    occurrence = await session.get_one(Occurrence, run.occurrence_id)
    if run.held_at is not None and run.held_at == run.last_at:
        await resolve(session, occurrence, "delete_missed", by="prefect", via="prefect", at=at, run_id=run_id)
    verdict = judge([run])
    event = of_deletion(ref_of(occurrence, run), verdict.outcome, verdict.reason, at)
    if event is not None and at >= log_since:
        await append(session, [event])
    await settle(session, occurrence)


async def apply_return(session: AsyncSession, run_id: str, now: datetime) -> None:
    """Prefect has a run again that was taken for deleted, as by a look at another server: that was no decision."""
    await lock_log(session)
    run = await session.get(Run, run_id)
    if run is None or run.deleted_at is None:
        return
    noticed, run.deleted_at = run.deleted_at, None
    occurrence = await session.get_one(Occurrence, run.occurrence_id)
    for told in await read_events_of_run(session, occurrence.rule_id, [run_id]):
        if told.occurred_at_utc == noticed:
            told.key = f"{told.key} taken back {told.seq}"  # should it come to that once more, it is logged once more
    await session.execute(
        delete(Resolution).where(
            col(Resolution.occurrence_id) == run.occurrence_id,
            col(Resolution.run_id) == run_id,
            col(Resolution.resolved_by) == "prefect",
            col(Resolution.at) == noticed,
        )
    )
    await settle(session, occurrence)
    if occurrence.outcome == "missed":
        await append(session, [of_return(ref_of(occurrence, run), now)])


async def expect(
    session: AsyncSession,
    *,
    rule_id: str,
    kind: str,
    owner_id: str,
    due: datetime,
    cause: str = "schedule",
    delivery_id: str | None = None,
    origin: str | None = None,
) -> Occurrence:
    """The occurrence of the rule at `due`, of that delivery, or rescheduled from the one whose key is `origin`.

    Recorded as expected if it is not there yet.
    """
    head = await lock_log(session)
    found = await _find(session, rule_id, occurrence_key(due, delivery_id, origin))
    if found is None:
        head.revision += 1
        from_ = await _find(session, rule_id, origin) if origin else None
        found = Occurrence(
            rule_id=rule_id,
            kind=kind,
            owner_id=owner_id,
            key=occurrence_key(due, delivery_id, origin),
            due=due.astimezone(UTC),
            cause=cause,
            origin_id=from_.id if from_ else None,
            recorded_at=datetime.now(UTC),
            revision=head.revision,
        )
        session.add(found)
        await session.flush()
    return found


async def settle(session: AsyncSession, occurrence: Occurrence) -> None:
    """Write down what became of the occurrence, from its runs and its resolution."""
    assert occurrence.id is not None  # it comes from the database
    runs = (await session.scalars(select(Run).where(col(Run.occurrence_id) == occurrence.id))).all()
    verdict = judge(runs, await resolution_of(session, occurrence.id), occurrence.skipped_as)
    before = _verdict(occurrence)
    occurrence.outcome, occurrence.reason = verdict.outcome, verdict.reason
    occurrence.running, occurrence.run_id = verdict.running, verdict.run_id
    occurrence.started_at, occurrence.ended_at = verdict.started_at, verdict.ended_at
    if _verdict(occurrence) != before:
        head = await lock_log(session)
        head.revision += 1
        occurrence.revision = head.revision
    await session.flush()
    tally_outcome(session, occurrence, str(before[0]), runs)


async def open_runs(session: AsyncSession) -> Sequence[Run]:
    """The runs of all occurrences that something must still become of, and those that are at work."""
    query = (
        select(Run)
        .join(Occurrence, col(Run.occurrence_id) == col(Occurrence.id))
        .where(
            col(Occurrence.outcome).in_(OPEN) | col(Occurrence.running),
            col(Run.deleted_at).is_(None),
        )
    )
    return (await session.scalars(query)).all()


async def known_runs(session: AsyncSession, run_ids: Iterable[str]) -> dict[str, tuple[Run, Occurrence]]:
    """The runs of these ids that the account has, with their occurrences."""
    wanted = list(run_ids)
    found: dict[str, tuple[Run, Occurrence]] = {}
    for first in range(0, len(wanted), _PAGE):
        query = (
            select(Run, Occurrence)
            .join(Occurrence, col(Run.occurrence_id) == col(Occurrence.id))
            .where(col(Run.run_id).in_(wanted[first : first + _PAGE]))
        )
        found |= {run.run_id: (run, occurrence) for run, occurrence in (await session.execute(query)).tuples()}
    return found


async def latest_runs(session: AsyncSession) -> list[str]:
    """The ids of the runs that were due last, at most a page of them."""
    query = select(col(Occurrence.run_id)).where(col(Occurrence.run_id).is_not(None))
    found = await session.scalars(query.order_by(col(Occurrence.due).desc()).limit(_PAGE))
    return [run_id for run_id in found if run_id is not None]


def ref_of(occurrence: Occurrence, run: Run) -> RunRef:
    """What the account knows about which run this is."""
    prefix, _, rest = occurrence.key.partition(":")
    return RunRef(
        run_id=run.run_id,
        name=run.name,
        deployment_id=run.deployment_id,
        rule_id=occurrence.rule_id,
        kind=occurrence.kind,
        owner_id=occurrence.owner_id,
        due=occurrence.due,
        cause=occurrence.cause,
        created=occurrence.recorded_at,
        delivery_id=rest if prefix == "delivery" else None,
        session_id=occurrence.session_id,
        origin=rest if prefix == RESCHEDULED else None,
    )


def _verdict(occurrence: Occurrence) -> tuple[object, ...]:
    one = occurrence
    return one.outcome, one.reason, one.running, one.run_id, one.started_at, one.ended_at


async def _find(session: AsyncSession, rule_id: str, key: str) -> Occurrence | None:
    found: Occurrence | None = await session.scalar(
        select(Occurrence).where(col(Occurrence.rule_id) == rule_id, col(Occurrence.key) == key)
    )
    return found


async def _row(session: AsyncSession, ref: RunRef) -> tuple[Occurrence, Run, bool]:
    run = await session.get(Run, ref.run_id)
    if run is not None:
        return await session.get_one(Occurrence, run.occurrence_id), run, False
    occurrence = await expect(
        session,
        rule_id=ref.rule_id,
        kind=ref.kind,
        owner_id=ref.owner_id,
        due=ref.due,
        cause=ref.cause,
        delivery_id=ref.delivery_id,
        origin=ref.origin,
    )
    assert occurrence.id is not None
    occurrence.session_id = occurrence.session_id or ref.session_id
    run = Run(run_id=ref.run_id, occurrence_id=occurrence.id, name=ref.name, deployment_id=ref.deployment_id)
    session.add(run)
    await session.flush()
    return occurrence, run, True
