"""An outage of ten hours, told to a real Prefect server and to a ledger as if it had been."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

from prefect.client.schemas.objects import FlowRun
from sqlalchemy import select
from sqlmodel import col

from proactive_prefect.ledger.cursors import BEGAN, move
from proactive_prefect.ledger.db import Ledger
from proactive_prefect.ledger.reconcile import reconcile
from proactive_prefect.ledger.tables import Occurrence
from proactive_prefect.ledger.versions import SeenRule, note_rules
from proactive_prefect.missed.plan import Plan
from proactive_prefect.missed.sweep import Sweeper
from proactive_prefect.prefect_api import PrefectApi
from proactive_prefect.prefect_api.deployments import read_deployments
from proactive_prefect.prefect_api.runs import find_runs
from proactive_prefect.settings import Settings
from tests.gateway.conftest import apply
from tests.ledger.histories import LONG_AGO

HOUR = timedelta(hours=1)


@dataclass
class Outage:
    """Hourly rules of one test, as if all had been down from `since` until now."""

    api: PrefectApi
    ledger: Ledger
    settings: Settings
    hours: int = 10
    mark: str = field(default_factory=lambda: uuid4().hex[:8])
    deployments: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        # Of a time in the middle of an hour: what was due last is past its grace, and nothing is due meanwhile.
        self.now = datetime.now(UTC)
        self.last = self.now.replace(minute=0, second=0, microsecond=0)
        if self.now - self.last < timedelta(minutes=2):
            self.last -= HOUR

    @property
    def due(self) -> list[datetime]:
        """The due times, oldest first."""
        return [self.last - number * HOUR for number in reversed(range(self.hours))]

    @property
    def project(self) -> str:
        """The project of the test's rules."""
        return f"missed-{self.mark}"

    def id(self, name: str) -> str:
        """The whole id of a rule."""
        return f"{name}-{self.mark}"

    async def begin(self, *rules: dict[str, Any], made_ahead: int = 3) -> None:
        """Deploy these rules; the ledger has known them since before, and Prefect had made so many runs of each."""
        filled = [{"kind": "heartbeat", "every": "1h", **rule, "id": self.id(rule["id"])} for rule in rules]
        await apply(self.project, *filled)
        found = {one.name: one for one in await read_deployments(self.api) if one.project == self.project}
        before = self.due[0] - HOUR / 2
        seen = [
            SeenRule(name, one.flow_name, one.id, one.data["parameters"]["rule"], "active", LONG_AGO, LONG_AGO)
            for name, one in found.items()
        ]
        async with self.ledger.write() as session:
            await note_rules(session, seen, before, log_since=LONG_AGO)
            await move(session, BEGAN, before)
        for rule in rules:
            self.deployments[rule["id"]] = deployment = found[self.id(rule["id"])].id
            if made_ahead:
                times = {"start_time": self.due[0].isoformat(), "end_time": self.due[made_ahead - 1].isoformat()}
                await self.api.post(f"/deployments/{deployment}/schedule", {**times, "min_runs": made_ahead})

    async def round(self) -> Plan:
        """A round of the sweep, as a gateway that has just started does it."""
        return await Sweeper(self.api, self.ledger, self.settings).round(datetime.now(UTC))

    async def look(self) -> None:
        """Let the ledger learn what has happened in Prefect."""
        await reconcile(self.api, self.ledger, self.settings)

    async def runs(self, name: str) -> list[FlowRun]:
        """The runs of a rule that were due by now, oldest first."""
        due = {"expected_start_time": {"before_": self.now.isoformat()}}
        found = await find_runs(self.api, [self.deployments[name]], due, sort="EXPECTED_START_TIME_ASC", limit=200)
        return [run for run in found if run.expected_start_time and run.expected_start_time >= self.due[0]]

    async def states(self, name: str) -> list[str]:
        """The names of their states."""
        return [run.state.name or "" for run in await self.runs(name) if run.state]

    async def account(self, name: str) -> list[Occurrence]:
        """What the ledger says of the rule's own due times, oldest first."""
        async with self.ledger.read() as session:
            query = (
                select(Occurrence)
                .where(col(Occurrence.rule_id) == self.id(name), col(Occurrence.due) <= self.last)
                .order_by(col(Occurrence.due))
            )
            return list((await session.scalars(query)).all())

    async def outcomes(self, name: str) -> list[str]:
        """Their outcomes."""
        return [one.outcome for one in await self.account(name)]
