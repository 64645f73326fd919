"""What became of the soak's occurrences, by the ledger."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta

from sqlalchemy import select
from sqlmodel import col

from ..ledger.db import Ledger
from ..ledger.outcomes import occurrence_key
from ..ledger.tables import Event, Occurrence, Run
from ..rules.models import Rulebook
from ..rules.state_names import SKIPPED
from ..rules.timing import due_between
from .rules import HOOK
from .slo import Seen

_OPEN = ("expected", "approved")
_CALLED_BEFORE = timedelta(minutes=5)
_MOST = 1_000_000  # due moments of one rule in a soak


class Account:
    """The due moments of the rules from `since` to `until`, and the deliveries that were accepted."""

    def __init__(
        self, ledger: Ledger, rules: Rulebook, since: datetime, until: datetime, accepted: Sequence[str]
    ) -> None:
        self._ledger = ledger
        self._since = since
        self._due = {
            (rule.id, occurrence_key(due)): f"{rule.id} due {due:%H:%M:%S}"
            for rule in rules.rules
            if rule.timing is not None
            for due in due_between(rule.timing, since, until, _MOST)
        }
        self._calls = {(HOOK, occurrence_key(until, one)): f"delivery {one}" for one in accepted}

    async def open(self) -> list[str]:
        """What has no outcome yet, in words."""
        found = await self._found()
        return [words for key, words in (self._due | self._calls).items() if _is_open(found.get(key))]

    async def write(self, seen: Seen) -> None:
        """Write down all of it."""
        found = await self._found()
        outcomes: Counter[str] = Counter()
        for key in self._due:
            one = found.get(key)
            outcomes["none" if one is None else one.outcome] += 1
            if one is not None and one.started_at is not None:
                seen.lags.append(max(0.0, (one.started_at - one.due).total_seconds()))
        seen.expected = len(self._due)
        seen.outcomes = dict(outcomes)
        seen.without = [words for key, words in self._due.items() if _is_open(found.get(key))]
        seen.lost_calls = [words for key, words in self._calls.items() if _is_open(found.get(key))]
        seen.undecided = sum(one.outcome == "missed" for one in found.values())
        seen.doubled = await self._doubled(found)
        seen.freshness = await self._freshness()

    async def _found(self) -> Mapping[tuple[str, str], Occurrence]:
        rules = {rule_id for rule_id, _ in self._due} | {HOOK}
        async with self._ledger.read() as session:
            # The first calls came before the first due time that counts.
            query = select(Occurrence).where(
                col(Occurrence.rule_id).in_(rules), col(Occurrence.due) >= self._since - _CALLED_BEFORE
            )
            return {(one.rule_id, one.key): one for one in (await session.scalars(query)).all()}

    async def _doubled(self, found: Mapping[tuple[str, str], Occurrence]) -> list[str]:
        """Occurrences of which more than one run got past the gate."""
        words = {one.id: f"{one.rule_id} due {one.due:%H:%M:%S}" for one in found.values()}
        async with self._ledger.read() as session:
            query = (
                select(col(Run.occurrence_id))
                .join(Occurrence, col(Run.occurrence_id) == col(Occurrence.id))
                .where(
                    col(Occurrence.due) >= self._since,
                    col(Run.first_running_at).is_not(None),
                    col(Run.ended_name).is_distinct_from(SKIPPED),
                )
            )
            begun = Counter((await session.scalars(query)).all())
        return [words[occurrence] for occurrence, count in begun.items() if count > 1 and occurrence in words]

    async def _freshness(self) -> list[float]:
        async with self._ledger.read() as session:
            query = select(col(Event.occurred_at_utc), col(Event.recorded_at)).where(
                col(Event.recorded_at) >= self._since,
                col(Event.occurred_at_utc) >= self._since,
                # A run that Prefect's scheduler made ahead is logged when it is due: that is no delay.
                col(Event.event_type).not_like("%scheduled"),
            )
            rows = (await session.execute(query)).tuples().all()
        return [max(0.0, (recorded - occurred).total_seconds()) for occurred, recorded in rows]


def _is_open(one: Occurrence | None) -> bool:
    return one is None or one.outcome in _OPEN or one.running


def now() -> datetime:
    """This instant, to the second."""
    return datetime.now(UTC).replace(microsecond=0)
