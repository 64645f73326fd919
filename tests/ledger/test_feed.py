"""The feed, on a real Prefect server: what happens there is in the ledger soon, once, whatever the stream loses."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
from prefect.client.schemas.objects import FlowRun, State
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect.states import Cancelled, Completed, Pending, Running
from sqlalchemy import select
from sqlmodel import col

from proactive_prefect.firing.gate import Hold, Skip
from proactive_prefect.firing.outcome import missed, skipped
from proactive_prefect.ledger.db import Ledger
from proactive_prefect.ledger.feed import feed
from proactive_prefect.ledger.log import append, read_events, read_head
from proactive_prefect.ledger.reconcile import reconcile
from proactive_prefect.ledger.tables import Event, Occurrence, Resolution, Run, Wake
from proactive_prefect.ledger.why import why
from proactive_prefect.prefect_api import PrefectApi, connect
from proactive_prefect.prefect_api.deployments import read_deployments
from proactive_prefect.prefect_api.runs import create_run, set_state
from proactive_prefect.settings import Settings
from tests.conftest import Server
from tests.gateway.conftest import apply, forget
from tests.support import wait_until

from .histories import an_event
from .proxy import Proxy

SOON = 60.0


@pytest.fixture
async def api(prefect_server: Server) -> AsyncIterator[PrefectApi]:
    """Prefect, to make things happen."""
    async with connect() as open_api:
        yield open_api


class Rules:
    """Rules of one test, deployed, with ids that no other test has."""

    def __init__(self, api: PrefectApi) -> None:
        self.api = api
        self.mark = uuid4().hex[:8]
        self.project = f"ledger-{self.mark}"

    def id(self, name: str) -> str:
        """The whole id of a rule."""
        return f"{name}-{self.mark}"

    async def deploy(self, *rules: dict[str, Any]) -> None:
        """Let these rules be the project's."""
        await apply(self.project, *({**rule, "id": self.id(rule["id"])} for rule in rules))

    async def deployment(self, name: str) -> str:
        """The deployment of a rule."""
        return next(one.id for one in await read_deployments(self.api) if one.name == self.id(name))

    async def run(self, name: str, *states: State[Any], key: str | None = None) -> FlowRun:
        """A run of the rule for now, brought to these states one after another."""
        run = await create_run(self.api, await self.deployment(name), idempotency_key=key or str(uuid4()))
        await self.play(run, *states)
        return run

    async def play(self, run: FlowRun, *states: State[Any]) -> None:
        """Bring the run to these states; a held one by force, as the gate does."""
        for state in states:
            answer = await set_state(self.api, run.id, state, force=state.name == "Missed")
            assert answer.status.value == "ACCEPT", answer


@pytest.fixture
async def rules(api: PrefectApi) -> AsyncIterator[Rules]:
    """Rules for one test, deleted afterwards."""
    made = Rules(api)
    yield made
    await forget(made.project)


@contextlib.asynccontextmanager
async def feeding(ledger: Ledger, *, count: int = 1) -> AsyncIterator[list[asyncio.Event]]:
    """So many feeds of that ledger, each as a gateway of its own would run it; what is yielded stops them."""
    stops = [asyncio.Event() for _ in range(count)]
    async with contextlib.AsyncExitStack() as stack:
        apis = [await stack.enter_async_context(connect()) for _ in range(count)]
        tasks = [
            asyncio.create_task(feed(one, ledger, stop, Settings())) for one, stop in zip(apis, stops, strict=True)
        ]
        try:
            yield stops
        finally:
            for stop in stops:
                stop.set()
            async with asyncio.timeout(30):
                await asyncio.gather(*tasks)


async def occurrence(ledger: Ledger, run: FlowRun) -> Occurrence | None:
    """The occurrence that the run belongs to, as the account has it now."""
    async with ledger.read() as session:
        found: Occurrence | None = await session.scalar(
            select(Occurrence)
            .join(Run, col(Run.occurrence_id) == col(Occurrence.id))
            .where(col(Run.run_id) == str(run.id))
        )
        return found


async def becomes(ledger: Ledger, run: FlowRun, outcome: str, *, within: float = SOON) -> Occurrence:
    """Wait until the run's occurrence has that outcome."""

    async def has() -> Occurrence | None:
        found = await occurrence(ledger, run)
        return found if found is not None and found.outcome == outcome else None

    return await wait_until(has, what=f"{run.name} is {outcome}", timeout=within)  # type: ignore[return-value]


async def logged(ledger: Ledger, rule_id: str) -> list[str]:
    """The types of the events of a rule, in order."""
    async with ledger.read() as session:
        return [event.event_type for event in await read_events(session, rule_id=rule_id)]


async def given(api: PrefectApi, rule_id: str) -> list[str]:
    """The events of ours that Prefect has stored about a rule, by name, oldest first."""
    resource = {"id": [f"proactive.rule.{rule_id}"]}
    since = (datetime.now(UTC) - timedelta(days=1)).isoformat()
    until = (datetime.now(UTC) + timedelta(days=1)).isoformat()
    wanted = {"resource": resource, "occurred": {"since": since, "until": until}, "order": "ASC"}
    found = await api.post("/events/filter", {"filter": wanted, "limit": 50})
    return [event["event"] for event in found["events"]]


HEARTBEAT = {"kind": "heartbeat", "id": "beat", "every": "1h"}
RAN = (Pending(), Running(), Completed(name="Quiet"))
RAN_EVENTS = ["heartbeat_job_created", "heartbeat_scheduled", "heartbeat_started", "heartbeat_completed"]


async def test_what_happens_in_prefect_is_in_the_ledger_at_once_and_given_back_once(
    ledger: Ledger, rules: Rules
) -> None:
    """A run's life is an occurrence and its events; each event is in Prefect, too, as proactive.*, once."""
    await rules.deploy(HEARTBEAT)
    async with feeding(ledger):
        await wait_until(lambda: logged(ledger, rules.id("beat")), what="the rule is known", timeout=SOON)
        run = await rules.run("beat", *RAN)
        found = await becomes(ledger, run, "quiet")
        assert (found.rule_id, found.kind, found.due, found.cause) == (
            rules.id("beat"),
            "heartbeat",
            run.expected_start_time,
            "manual",
        )
        assert await logged(ledger, rules.id("beat")) == RAN_EVENTS

        async def all_given() -> bool:
            return sorted(await given(rules.api, rules.id("beat"))) == sorted(f"proactive.{one}" for one in RAN_EVENTS)

        await wait_until(all_given, what="Prefect has the events", timeout=SOON)


async def test_decisions_in_prefects_own_ui_are_decisions(ledger: Ledger, rules: Rules) -> None:
    """Resume approves, Cancel and delete drop; a skip is a skip with its reason."""
    await rules.deploy(HEARTBEAT)
    async with feeding(ledger):
        resumed, cancelled, deleted = [await rules.run("beat", missed(Hold("late"))) for _ in range(3)]
        skip = await rules.run("beat", skipped(Skip("overlap", "another ran")))
        for run in (resumed, cancelled, deleted):
            await becomes(ledger, run, "missed")
        await rules.api.post(f"/flow_runs/{resumed.id}/resume", {})
        await becomes(ledger, resumed, "approved")
        await rules.play(resumed, *RAN)
        await becomes(ledger, resumed, "quiet")
        await rules.play(cancelled, Cancelled())
        await becomes(ledger, cancelled, "deleted")
        await rules.api.delete(f"/flow_runs/{deleted.id}")
        await becomes(ledger, deleted, "deleted", within=90)  # Prefect does not tell: it is found by a look
        assert (await becomes(ledger, skip, "skipped")).reason == "overlap: another ran"
    async with ledger.read() as session:
        own = select(Occurrence.id).where(Occurrence.rule_id == rules.id("beat"))
        made = (await session.scalars(select(Resolution).where(Resolution.occurrence_id.in_(own)))).all()
    assert sorted(one.action for one in made) == ["approve_backfill_run", "delete_missed", "delete_missed"]


async def test_what_happened_while_nobody_listened_is_found(ledger: Ledger, rules: Rules) -> None:
    """Everything from before the feed's start is there after it, and hearing of it again doubles nothing."""
    await rules.deploy(HEARTBEAT)
    ran, held = await rules.run("beat", *RAN), await rules.run("beat", missed(Hold("late")))
    await reconcile(rules.api, ledger, Settings())
    assert (await becomes(ledger, ran, "quiet", within=0)).started_at is not None
    await becomes(ledger, held, "missed", within=0)
    before = await logged(ledger, rules.id("beat"))
    async with feeding(ledger):  # the stream tells of the last minute again
        after = await rules.run("beat", *RAN)
        await becomes(ledger, after, "quiet")
    events = await logged(ledger, rules.id("beat"))
    assert events[: len(before)] == before
    assert events[len(before) :] == RAN_EVENTS[1:]


async def test_a_webhooks_delivery_names_its_occurrence(ledger: Ledger, rules: Rules) -> None:
    """The key is the delivery, so the same one is the same occurrence whenever it comes; also one skipped at once."""
    await rules.deploy({"id": "hook"})
    runs = []
    for delivery, state in (("d1", None), ("d2", skipped(Skip("condition_false", "when: no")))):
        runs.append(
            await create_run(
                rules.api,
                await rules.deployment("hook"),
                idempotency_key=f"webhook {rules.id('hook')} {delivery}",
                cause="webhook",
                state=state,
            )
        )
    await reconcile(rules.api, ledger, Settings())
    found = [await occurrence(ledger, run) for run in runs]
    assert [(one.key, one.cause, one.outcome) for one in found if one] == [
        ("delivery:d1", "webhook", "expected"),
        ("delivery:d2", "webhook", "skipped"),
    ]


async def test_a_run_of_prefects_scheduler_is_accounted_for_when_it_is_due(ledger: Ledger, rules: Rules) -> None:
    """No event tells of it; it is found when its time has come, and not before."""
    await rules.deploy({**HEARTBEAT, "every": "1m"})
    async with feeding(ledger):

        async def due() -> Sequence[Occurrence]:
            async with ledger.read() as session:
                query = select(Occurrence).where(col(Occurrence.rule_id) == rules.id("beat"))
                return (await session.scalars(query)).all()

        found = await wait_until(due, what="an occurrence of the schedule", timeout=150)
    assert {(one.cause, one.due.second) for one in found} == {("schedule", 0)}
    assert all(one.due <= datetime.now(UTC) for one in found)


async def test_a_broken_stream_is_joined_again_and_what_it_missed_is_found(
    ledger: Ledger, rules: Rules, prefect_server: Server
) -> None:
    """Cut off from Prefect for a while, the feed comes back by itself, and the account is complete within a minute."""
    await rules.deploy(HEARTBEAT)
    async with Proxy(prefect_server.api_url) as proxy:
        with temporary_settings({PREFECT_API_URL: proxy.url}):
            async with feeding(ledger):
                first = await rules.run("beat", *RAN)
                await becomes(ledger, first, "quiet")
                await proxy.cut()
                unheard = await rules.run("beat", *RAN)
                half = await rules.run("beat", *RAN[:2])
                proxy.mend()
                await becomes(ledger, unheard, "quiet")
                await wait_until(lambda: _runs(ledger, half), what="the run at work is known", timeout=SOON)
                await rules.play(half, RAN[2])
                await becomes(ledger, half, "quiet")
    assert sorted(await logged(ledger, rules.id("beat"))) == sorted([RAN_EVENTS[0], *RAN_EVENTS[1:] * 3])


async def _runs(ledger: Ledger, run: FlowRun) -> bool:
    found = await occurrence(ledger, run)
    return found is not None and found.running


async def test_several_gateways_do_the_work_once_and_one_takes_over(ledger: Ledger, rules: Rules) -> None:
    """Three feeds of one ledger: each event is logged and given once; stopping the busy one changes nothing."""
    await rules.deploy(HEARTBEAT)
    async with feeding(ledger, count=3) as stops:
        for stop in stops:  # whichever has the lease, at least one of the first two stops lets another take it
            run = await rules.run("beat", *RAN)
            await becomes(ledger, run, "quiet")
            if stop is not stops[-1]:
                stop.set()

        async def all_given() -> bool:
            async with ledger.read() as session:
                head = await read_head(session)
            return head.emitted == head.seq

        await wait_until(all_given, what="all events are given to Prefect", timeout=SOON)
        wanted = [RAN_EVENTS[0], *RAN_EVENTS[1:] * 3]
        assert sorted(await logged(ledger, rules.id("beat"))) == sorted(wanted)

        async def stored() -> bool:
            return len(await given(rules.api, rules.id("beat"))) >= len(wanted)

        await wait_until(stored, what="Prefect has stored them", timeout=SOON)
        assert sorted(await given(rules.api, rules.id("beat"))) == sorted(f"proactive.{one}" for one in wanted)


async def test_why_knows_what_the_rule_was_at_any_time(ledger: Ledger, rules: Rules) -> None:
    """Changed, paused and deleted: each is in the log, and is the answer for a time at which nothing ran."""
    born = datetime.now(UTC)
    await rules.deploy(HEARTBEAT)
    look = Settings()
    await reconcile(rules.api, ledger, look)
    await rules.deploy({**HEARTBEAT, "every": "2h"})
    await reconcile(rules.api, ledger, look)
    await rules.api.patch(f"/deployments/{await rules.deployment('beat')}", {"paused": True})
    await reconcile(rules.api, ledger, look)
    paused = datetime.now(UTC)
    await forget(rules.project)
    await reconcile(rules.api, ledger, look)
    gone = datetime.now(UTC)
    async with ledger.read() as session:
        events = await read_events(session, rule_id=rules.id("beat"))
        names = [(event.event_type, event.status) for event in events]
        assert names == [
            ("heartbeat_job_created", "active"),
            ("heartbeat_job_updated", "updated"),
            ("heartbeat_job_updated", "paused"),
            ("heartbeat_job_deleted", "deleted"),
        ]
        assert events[1].payload["changed"] == ["every"]
        for at, verdict in ((born - timedelta(hours=1), "before_created"), (paused, "paused"), (gone, "deleted")):
            answer = await why(session, rules.id("beat"), at, gone)
            assert answer.verdict == verdict, answer


async def test_old_news_is_logged_and_not_given_to_prefect(ledger: Ledger, rules: Rules) -> None:
    """A new ledger that finds out about last week raises no alarm about it now."""
    old = an_event("old", at=datetime.now(UTC) - timedelta(days=2), rule_id=rules.id("beat"))
    async with ledger.write() as session:
        await append(session, [old, an_event("new", at=datetime.now(UTC), rule_id=rules.id("beat"))])
    async with feeding(ledger):

        async def noted() -> bool:
            async with ledger.read() as session:
                return (await read_head(session)).emitted >= 2

        await wait_until(noted, what="both events are dealt with", timeout=SOON)
        await wait_until(lambda: given(rules.api, rules.id("beat")), what="Prefect has an event", timeout=SOON)
    assert await given(rules.api, rules.id("beat")) == ["proactive.heartbeat_completed"]


async def test_wakes_that_were_delivered_long_ago_are_taken_away(ledger: Ledger, prefect_server: Server) -> None:
    """Those that wait stay however long, and the others as long as the log's events."""
    long_ago, lately = datetime.now(UTC) - timedelta(days=40), datetime.now(UTC) - timedelta(days=1)
    async with ledger.write() as session:
        for key, delivered in (("old", long_ago), ("new", lately), ("waiting", None)):
            wake = {"rule_id": "beat", "key": key, "mode": "next", "reason": "because", "asked_at": long_ago}
            session.add(Wake(**wake, delivered_at=delivered))

    async def left() -> bool:
        async with ledger.read() as session:
            return set((await session.scalars(select(col(Wake.key)))).all()) == {"new", "waiting"}

    async with feeding(ledger):
        await wait_until(left, what="the old wake is gone", timeout=SOON)


async def test_nothing_of_ours_is_taken_for_prefects(ledger: Ledger, rules: Rules) -> None:
    """Events that the ledger gave to Prefect never come back into it."""
    await rules.deploy(HEARTBEAT)
    async with feeding(ledger):
        for _ in range(2):
            await becomes(ledger, await rules.run("beat", *RAN), "quiet")
        await wait_until(lambda: given(rules.api, rules.id("beat")), what="Prefect has some events", timeout=SOON)
    async with ledger.read() as session:
        keys = (await session.scalars(select(col(Event.event_type)))).all()
    assert not [key for key in keys if key.startswith("proactive.")]
