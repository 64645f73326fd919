"""The sweep, on a real Prefect server: ten hours of an hourly rule, of which Prefect had made three runs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect.states import Completed, Crashed, Pending, Running, Scheduled
from sqlalchemy import select
from sqlmodel import col

from proactive_prefect.firing.facts import gather, occurrence_of
from proactive_prefect.firing.gate import Hold, Run, decide
from proactive_prefect.firing.outcome import missed
from proactive_prefect.ledger.db import open_ledger
from proactive_prefect.ledger.log import read_events
from proactive_prefect.ledger.tables import Resolution
from proactive_prefect.missed.carry import carry_out, has_more
from proactive_prefect.missed.plan import Gap
from proactive_prefect.missed.resolve import learn, learn_held, resolve_missed
from proactive_prefect.missed.sweep import Sweeper, sweep
from proactive_prefect.prefect_api import connect
from proactive_prefect.prefect_api.client import Refused
from proactive_prefect.prefect_api.missed import create_missed, resume_run
from proactive_prefect.prefect_api.pausing import pause_rule, resume_rule
from proactive_prefect.prefect_api.runs import cancel_run, create_run, run_states, set_state, upcoming_runs
from proactive_prefect.rules.models import to_snapshot
from proactive_prefect.settings import Settings
from tests.conftest import Server
from tests.gateway.conftest import apply, forget, rulebook
from tests.support import free_port, wait_until

from .outage import HOUR, Outage
from .relay import A_PAGE, BAD_GATEWAY, FORBIDDEN, Relay


@pytest.fixture
async def outage(prefect_server: Server, tmp_path: Path) -> AsyncIterator[Outage]:
    """An outage that has just ended; its rules are gone after the test."""
    settings = Settings(home=tmp_path / "home", missed_at_once=2)
    async with open_ledger(settings) as ledger, connect(settings) as api:
        made = Outage(api, ledger, settings)
        try:
            yield made
        finally:
            await forget(made.project)


def plenty(outage: Outage) -> Settings:
    """Room for all: of other tests' runs, which are on the same server, some may be on their way."""
    return outage.settings.model_copy(update={"missed_at_once": 100})


async def test_each_hour_is_missed_once_and_decided_once(outage: Outage) -> None:
    """Seven that Prefect never made beside three that it had: ten are Missed, and what is decided stays decided."""
    await outage.begin({"id": "disk"})
    assert len(await outage.runs("disk")) == 3
    found = await outage.round()
    assert (len(found.gaps), len(found.late)) == (7, 3)
    runs = await outage.runs("disk")
    assert [run.expected_start_time for run in runs] == outage.due
    assert await outage.states("disk") == ["Missed"] * 10
    account = await outage.account("disk")
    assert [(one.due, one.outcome, one.run_id) for one in account] == [
        (due, "missed", str(run.id)) for due, run in zip(outage.due, runs, strict=True)
    ]

    async def decide(number: int, action: str, target: datetime | None = None) -> None:
        [answer] = await resolve_missed(
            outage.ledger,
            outage.api,
            outage.settings,
            [account[number].id or 0],
            action,  # type: ignore[arg-type]
            by="ada",
            via="api",
            target=target,
        )
        assert (answer.status, answer.carried_out) == ("resolved", True)

    await decide(0, "approve_backfill_run")
    await decide(1, "reschedule", datetime.now(UTC) + HOUR)
    await decide(2, "delete_missed")
    # What people do in Prefect's own UI.
    await outage.api.post(f"/flow_runs/{runs[3].id}/resume", {})
    await cancel_run(outage.api, runs[4].id)
    await outage.api.delete(f"/flow_runs/{runs[5].id}")
    await outage.look()
    wanted = ["approved", "rescheduled", "deleted", "approved", "deleted", "deleted", *["missed"] * 4]
    assert await outage.outcomes("disk") == wanted
    assert (await outage.states("disk"))[:5] == ["Resuming", "Rescheduled", "Cancelled", "Resuming", "Cancelled"]
    for _ in range(2):
        assert (await outage.round()).is_empty
    assert await outage.outcomes("disk") == wanted
    assert len(await outage.runs("disk")) == 9
    async with outage.ledger.read() as session:
        logged = list(await read_events(session, rule_id=outage.id("disk"), limit=1000))
    assert sum(event.event_type == "heartbeat_missed" for event in logged) == 10
    resolved = [event.payload for event in logged if event.event_type == "missed_resolved"]
    assert [one["resolved_by"] for one in sorted(resolved, key=lambda one: one["due"])] == ["ada"] * 3 + ["prefect"] * 3

    # An approved one runs for its original time, as its rule was then.
    run = (await outage.runs("disk"))[0]
    assert run.expected_start_time == outage.due[0]
    for state in (Pending(), Running(), Completed(message="caught up")):
        await set_state(outage.api, run.id, state)
    await outage.look()
    first = (await outage.account("disk"))[0]
    assert (first.outcome, first.reason) == ("completed", "caught up")


async def test_two_sweeps_at_once_and_one_that_died_leave_one_run_each(outage: Outage) -> None:
    """A run that was made, and whose maker died before it was held, is held by the next round."""
    outage.hours = 4
    await outage.begin({"id": "disk"}, made_ahead=0)
    rule = rulebook({"kind": "heartbeat", "every": "1h", "id": outage.id("disk")}).rules[0]
    due = outage.due[2]
    await create_run(
        outage.api,
        outage.deployments["disk"],
        idempotency_key=f"missed {rule.id} {due.isoformat()}",
        parameters={"rule": to_snapshot(rule)},
        state=Scheduled(scheduled_time=due),
        cause="schedule",
    )
    await asyncio.gather(outage.round(), outage.round())
    assert [run.expected_start_time for run in await outage.runs("disk")] == outage.due
    assert await outage.states("disk") == ["Missed"] * 4
    assert await outage.outcomes("disk") == ["missed"] * 4


async def test_rules_that_decide_for_themselves(outage: Outage) -> None:
    """latest runs the last one, skip none; what is skipped has no run, or a skipped one where Prefect had made it."""
    outage.hours = 5
    await outage.begin(
        {"id": "latest", "on_missed": "latest"}, {"id": "skip", "on_missed": "skip"}, {"id": "old", "stale_after": "3h"}
    )
    await outage.round()
    await outage.look()
    assert await outage.outcomes("latest") == ["skipped"] * 4 + ["approved"]
    assert await outage.outcomes("skip") == ["skipped"] * 5
    assert await outage.outcomes("old") == ["skipped"] * 2 + ["missed"] * 3
    assert await outage.states("latest") == ["Skipped"] * 3 + ["Resuming"]
    assert await outage.states("skip") == ["Skipped"] * 3
    assert {one.reason.partition(":")[0] for one in (await outage.account("skip"))} == {"stale"}
    assert (await outage.round()).is_empty


async def test_catching_up_is_paced_high_priority_first(outage: Outage) -> None:
    """Two at once; of a rule that allows no overlap one; the next when one has ended; each for its own time."""
    outage.hours = 3
    await outage.begin(
        {"id": "plain", "on_missed": "run", "on_overlap": "allow"},
        {"id": "urgent", "on_missed": "run", "priority": "high", "on_overlap": "skip"},
        made_ahead=0,
    )
    await outage.round()
    ran: list[tuple[str, datetime | None]] = []
    for _ in range(6):
        await outage.look()
        let_go = [
            (name, run)
            for name in ("urgent", "plain")
            for run in await outage.runs(name)
            if run.state_name == "Resuming"
        ]
        assert len(let_go) == min(2, 6 - len(ran))
        assert sum(name == "urgent" for name, _ in let_go) <= 1
        name, run = let_go[0]
        ran.append((name, run.expected_start_time))
        for state in (Pending(), Running(), Completed()):
            await set_state(outage.api, run.id, state)
        await outage.look()
        await carry_out(outage.ledger, outage.api, outage.settings)
    assert ran == [*(("urgent", due) for due in outage.due), *(("plain", due) for due in outage.due)]
    assert [state.name for state in await run_states(outage.api, run.id)][:3] == ["Scheduled", "Missed", "Resuming"]


async def test_a_rule_edited_while_all_was_down_is_held_as_it_was_then(outage: Outage) -> None:
    """By its old times, with what it was to do then; what the new times would have been is nobody's."""
    outage.hours = 3
    await outage.begin({"id": "disk", "description": "old"}, made_ahead=0)
    await outage.look()
    new = {"kind": "heartbeat", "id": outage.id("disk"), "every": "30m", "description": "new"}
    await apply(outage.project, new)
    await outage.round()
    runs = await outage.runs("disk")
    assert [run.expected_start_time for run in runs] == outage.due
    assert all('"description":"old"' in run.parameters["rule"] for run in runs)


async def test_a_stale_one_is_skipped_when_nobody_decides(outage: Outage) -> None:
    """That is not a decision of anybody."""
    outage.hours = 3
    await outage.begin({"id": "disk", "stale_after": f"{2 * 3600}s"}, made_ahead=0)
    await outage.round()
    [*_, last] = await outage.account("disk")
    assert last.outcome == "missed"
    await Sweeper(outage.api, outage.ledger, outage.settings)._drop_stale(last.due + 2 * HOUR + timedelta(seconds=1))
    [*_, last] = await outage.account("disk")
    assert (last.outcome, last.reason.partition(":")[0]) == ("skipped", "stale")
    async with outage.ledger.read() as session:
        logged = await read_events(session, rule_id=outage.id("disk"), limit=1000)
    assert "missed_resolved" not in {event.event_type for event in logged}


async def test_runs_that_workers_left_behind_are_found(outage: Outage) -> None:
    """One claimed and never begun is missed; one that began and never ended is unknown, and is not run again."""
    outage.hours = 3
    await outage.begin({"id": "disk", "retries": 0}, made_ahead=3)
    claimed, began, *_ = await outage.runs("disk")
    await set_state(outage.api, claimed.id, Pending())
    for state in (Pending(), Running()):
        await set_state(outage.api, began.id, state)
    await outage.round()
    assert (await outage.outcomes("disk"))[:3] == ["expected", "expected", "missed"]
    await Sweeper(outage.api, outage.ledger, outage.settings).round(datetime.now(UTC) + timedelta(minutes=16))
    await outage.look()
    assert (await outage.outcomes("disk"))[:2] == ["missed", "unknown"]
    assert (await outage.states("disk"))[:2] == ["Missed", "Crashed"]
    await outage.round()
    assert (await outage.states("disk"))[:2] == ["Missed", "Crashed"]


async def test_runs_left_behind_run_again_as_retries_where_the_rule_says_so(outage: Outage) -> None:
    """As often as it has retries, and the gate lets it go although it is late; then it stays unknown."""
    outage.hours = 2
    await outage.begin({"id": "disk", "retries": 1, "retry_abandoned": True}, made_ahead=2)
    run = (await outage.runs("disk"))[0]
    rule = rulebook({"kind": "heartbeat", "every": "1h", "id": "x", "retries": 1, "retry_abandoned": True}).rules[0]
    crash = (Pending(), Running(), Crashed(message="its machine went away"))
    for wanted in ("AwaitingRetry", "Crashed"):
        for state in crash:
            await set_state(outage.api, run.id, state)
        await outage.look()
        assert (await outage.outcomes("disk"))[0] == "unknown"
        await outage.round()
        run = (await outage.runs("disk"))[0]
        assert run.state_name == wanted
        facts = await gather(outage.api, rule, run)
        assert decide(rule, occurrence_of(run, rule), facts) == Run()


async def test_an_approved_run_that_prefect_deletes_is_made_again(outage: Outage) -> None:
    """A pause deletes what waits in Prefect: what was approved runs all the same, for its own time."""
    outage.hours = 2
    await outage.begin({"id": "disk", "on_overlap": "skip"}, made_ahead=2)
    await outage.round()
    gone, dropped, *_ = [one.id or 0 for one in await outage.account("disk")]
    await resolve_missed(
        outage.ledger, outage.api, outage.settings, [gone, dropped], "approve_backfill_run", by="ada", via="api"
    )
    assert (await outage.states("disk"))[0] == "Resuming"
    held = (await outage.runs("disk"))[1]  # its turn comes when the first has ended
    await outage.api.delete(f"/flow_runs/{held.id}")
    await pause_rule(outage.api, outage.deployments["disk"])
    await resume_rule(outage.api, outage.deployments["disk"], enabled=True)
    await outage.look()
    assert (await outage.outcomes("disk"))[:2] == ["deleted", "deleted"]
    for _ in range(2):
        await outage.round()
        await carry_out(outage.ledger, outage.api, outage.settings)
        await outage.look()
    # The one that somebody deleted while it was held stays deleted.
    assert (await outage.outcomes("disk"))[:2] == ["approved", "deleted"]
    [run] = [one for one in await outage.runs("disk") if one.state_name == "Resuming"]
    assert run.expected_start_time == outage.due[0]
    assert '"every":"1h"' in run.parameters["rule"]
    for state in (Pending(), Running(), Completed(message="caught up")):
        await set_state(outage.api, run.id, state)
    await outage.look()
    await outage.round()
    assert (await outage.outcomes("disk"))[:2] == ["completed", "deleted"]


async def test_a_decision_left_behind_by_who_made_it_is_carried_out_later(outage: Outage) -> None:
    """As when the process that made it dies right after it was written down, or Prefect is away."""
    outage.hours = 2
    await outage.begin({"id": "disk"}, made_ahead=0)
    await outage.round()
    first, second, *_ = [one.id or 0 for one in await outage.account("disk")]
    with temporary_settings({PREFECT_API_URL: f"http://127.0.0.1:{free_port()}/api"}):
        async with connect(Settings(api_patience=1)) as away:
            for one, action in ((first, "approve_backfill_run"), (second, "delete_missed")):
                [answer] = await resolve_missed(
                    outage.ledger,
                    away,
                    outage.settings,
                    [one],
                    action,
                    by="ada",
                    via="api",  # type: ignore[arg-type]
                )
                assert not answer.carried_out
    assert (await outage.states("disk"))[:2] == ["Missed", "Missed"]
    await carry_out(outage.ledger, outage.api, outage.settings)
    assert (await outage.states("disk"))[:2] == ["Resuming", "Cancelled"]


async def test_a_decision_outlives_a_proxy_without_an_upstream(outage: Outage) -> None:
    """An error that passes refuses nothing: what was rescheduled meanwhile gets its run when Prefect answers again."""
    outage.hours = 1
    await outage.begin({"id": "disk"}, made_ahead=0)
    await outage.round()
    [one] = await outage.account("disk")
    target = datetime.now(UTC) + HOUR
    async with Relay(outage.api.url) as relay:
        relay.says = BAD_GATEWAY
        with temporary_settings({PREFECT_API_URL: relay.url}):
            async with connect(Settings(api_patience=1)) as api:
                ids = [one.id or 0]
                [answer] = await resolve_missed(
                    outage.ledger, api, outage.settings, ids, "reschedule", by="a", via="api", target=target
                )
                assert not answer.carried_out
                for said in (BAD_GATEWAY, FORBIDDEN):
                    relay.says = said
                    with pytest.raises(Refused, match=said[0][:3]):
                        await carry_out(outage.ledger, api, outage.settings)
                relay.says = None
                await carry_out(outage.ledger, api, outage.settings)
    coming = await upcoming_runs(outage.api, [outage.deployments["disk"]], until=target + timedelta(seconds=1))
    assert target in [run.expected_start_time for run in coming]
    assert await outage.states("disk") == ["Rescheduled"]


async def test_a_deployment_that_goes_away_within_a_round_leaves_no_due_time_behind(outage: Outage) -> None:
    """The next round knows that it is gone, and looks at the same time again."""
    outage.hours = 3
    await outage.begin({"id": "disk"}, made_ahead=0)

    class Overtaken(Sweeper):
        """After it has looked, and before it makes the runs, somebody deletes the deployment."""

        async def _make(self, gaps: Sequence[Gap]) -> bool:
            await outage.api.delete(f"/deployments/{outage.deployments['disk']}")
            return await super()._make(gaps)

    await Overtaken(outage.api, outage.ledger, outage.settings).round(datetime.now(UTC))
    assert await outage.account("disk") == []
    await outage.round()
    assert [one.reason.partition(":")[0] for one in await outage.account("disk")] == ["disabled"] * 3


async def test_an_approved_run_made_again_by_a_process_that_died_gets_its_turn(outage: Outage) -> None:
    """The ledger hears of the new run, and of nothing that binds it to the approval: it takes no place for ever."""
    outage.hours = 1
    await outage.begin({"id": "disk"}, made_ahead=1)
    await outage.round()
    [one] = await outage.account("disk")
    await resolve_missed(
        outage.ledger, outage.api, plenty(outage), [one.id or 0], "approve_backfill_run", by="ada", via="api"
    )
    [first] = await outage.runs("disk")
    assert first.state_name == "Resuming"
    await outage.api.delete(f"/flow_runs/{first.id}")
    await outage.look()
    assert await outage.outcomes("disk") == ["deleted"]
    rule = outage.id("disk")
    held = missed(Hold("made again"))
    made = await create_missed(
        outage.api, outage.deployments["disk"], rule, first.parameters["rule"], outage.due[0], held
    )
    await learn(outage.ledger, outage.api, outage.settings, [str(made.id)])
    async with outage.ledger.write() as session:  # half a minute later
        [resolution] = (await session.scalars(select(Resolution).where(col(Resolution.occurrence_id) == one.id))).all()
        assert resolution.carried_at is not None
        resolution.carried_at -= timedelta(minutes=1)
    assert await has_more(outage.ledger)
    await outage.round()
    await carry_out(outage.ledger, outage.api, plenty(outage))
    assert await outage.states("disk") == ["Resuming"]
    for state in (Pending(), Running(), Completed()):
        await set_state(outage.api, made.id, state)
    await outage.look()
    assert await outage.outcomes("disk") == ["completed"]


async def test_a_stale_one_that_somebody_has_just_resumed_runs(outage: Outage) -> None:
    """Of which the ledger has not heard yet: their word counts, and the others are skipped."""
    outage.hours = 2
    await outage.begin({"id": "disk", "stale_after": "1d"}, made_ahead=0)
    await outage.round()
    first, _ = await outage.runs("disk")
    await resume_run(outage.api, first.id)
    await Sweeper(outage.api, outage.ledger, outage.settings)._drop_stale(datetime.now(UTC) + timedelta(days=2))
    assert await outage.states("disk") == ["Resuming", "Skipped"]
    assert await outage.outcomes("disk") == ["approved", "skipped"]


async def test_the_sweep_goes_on_after_an_answer_that_nobody_foresaw(
    outage: Outage, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As a page of a proxy, with success, where JSON should be: it is said, and each work is tried again."""
    monkeypatch.setattr("proactive_prefect.missed.sweep.ROUND_EVERY", 0.2)
    outage.hours = 2
    await outage.begin({"id": "disk", "on_missed": "run", "on_overlap": "allow"}, made_ahead=0)
    stop = asyncio.Event()
    async with Relay(outage.api.url) as relay:
        relay.says = A_PAGE
        with temporary_settings({PREFECT_API_URL: relay.url}):
            async with connect(Settings(api_patience=1)) as api:
                sweeping = asyncio.create_task(sweep(api, outage.ledger, stop, plenty(outage)))
                try:
                    for work in ("sweep", "watch"):
                        said = f"missed.{work} failed: JSONDecodeError"
                        await wait_until(lambda said=said: said in caplog.text, what=said)
                    relay.says = None

                    async def all_go() -> bool:
                        return await outage.states("disk") == ["Resuming"] * 2

                    await wait_until(all_go, what="what was missed is let go")
                finally:
                    stop.set()
                    await sweeping


async def test_the_works_of_the_sweep_outlive_whatever_fails(outage: Outage, caplog: pytest.LogCaptureFixture) -> None:
    """Carrying out too: a decision waits, the answers are nonsense, and then they are not."""
    outage.hours = 1
    await outage.begin({"id": "disk"}, made_ahead=0)
    await outage.round()
    [one] = await outage.account("disk")
    async with Relay(outage.api.url) as relay:
        with temporary_settings({PREFECT_API_URL: f"http://127.0.0.1:{free_port()}/api"}):
            async with connect(Settings(api_patience=1)) as away:
                await resolve_missed(
                    outage.ledger, away, outage.settings, [one.id or 0], "delete_missed", by="ada", via="api"
                )
        relay.says = A_PAGE
        with temporary_settings({PREFECT_API_URL: relay.url}):
            async with connect(Settings(api_patience=1)) as api:
                carrying = asyncio.create_task(Sweeper(api, outage.ledger, outage.settings).carry())
                try:
                    said = "missed.carry failed: JSONDecodeError"
                    await wait_until(lambda: said in caplog.text, what=said)
                    relay.says = None

                    async def is_done() -> bool:
                        return await outage.states("disk") == ["Cancelled"]

                    await wait_until(is_done, what="the decision is carried out")
                finally:
                    carrying.cancel()
                    await asyncio.gather(carrying, return_exceptions=True)


async def test_held_runs_are_learned_some_at_a_time(outage: Outage, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many Prefect holds: where no gateway feeds the ledger, a command asks for them."""
    monkeypatch.setattr("proactive_prefect.missed.resolve._BATCH", 2)
    outage.hours = 5
    await outage.begin({"id": "disk"}, made_ahead=5)
    held = missed(Hold("late"))
    for run in await outage.runs("disk"):
        await set_state(outage.api, run.id, held, force=True)
    await learn_held(outage.ledger, outage.api, outage.settings)
    assert await outage.outcomes("disk") == ["missed"] * 5
