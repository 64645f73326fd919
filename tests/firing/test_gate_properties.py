"""What holds for the gate in every history: small simulations of a server, with runs in any order."""

from __future__ import annotations

import random
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any
from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from proactive_prefect.firing.gate import Facts, Hold, Occurrence, Run, RunFact, Skip, Stage, decide
from proactive_prefect.rules.models import HeartbeatRule

ZERO = datetime(2026, 3, 4, 10, 0, tzinfo=UTC)
STAGES: tuple[Stage, ...] = ("waiting", "running", "held", "ran", "settled")
CODES = {"overlap", "duplicate", "cooldown", "max_runs", "expired", "stale", "condition_false", "disabled"}


def at(seconds: float) -> datetime:
    return ZERO + timedelta(seconds=seconds)


def rule(**keys: Any) -> HeartbeatRule:
    keys = {"id": "r", "every": "5m", "grace": "10h", "action": {"type": "python", "call": "a:b"}, **keys}
    return HeartbeatRule.model_validate(keys)


seconds = st.integers(-600, 600)


@st.composite
def run_facts(draw: st.DrawFn, number: int) -> RunFact:
    stage: Stage = draw(st.sampled_from(STAGES))
    due, wait, length = draw(seconds), draw(st.integers(0, 100)), draw(st.integers(1, 400))
    began = None if stage == "waiting" else at(due + wait)
    ended = at(due + wait + length) if stage in ("ran", "settled") else None
    return RunFact(UUID(int=number), at(due), draw(st.booleans()), stage, began, ended)


@st.composite
def histories(draw: st.DrawFn) -> list[RunFact]:
    return [draw(run_facts(number)) for number in range(1, draw(st.integers(0, 8)) + 1)]


rules = st.builds(
    rule,
    enabled=st.sampled_from([True, True, True, False]),
    on_overlap=st.sampled_from(["skip", "queue_one", "queue_all", "cancel_running", "allow"]),
    on_missed=st.sampled_from(["ask", "run", "latest", "skip"]),
    grace=st.sampled_from(["10s", "5m", "1h"]),
    cooldown=st.sampled_from([None, "30s", "10m"]),
    max_runs=st.sampled_from([None, 1, 3]),
    end_at=st.sampled_from([None, at(100).isoformat()]),
    conditions=st.sampled_from([{}, {"custom": "due.minute < 5"}]),
)
occurrences = st.builds(
    lambda due, wait, cause: Occurrence("r", at(due), UUID(int=4), cause, None if wait is None else at(due + wait)),
    st.integers(-60, 300),
    st.none() | st.integers(0, 900),
    st.sampled_from(["schedule", "manual", "webhook"]),
)


@given(rules, occurrences, histories(), st.integers(0, 5), st.booleans(), st.randoms())
def test_every_occurrence_gets_one_decision_whatever_the_order_of_the_facts(
    given_rule: HeartbeatRule,
    occurrence: Occurrence,
    history: list[RunFact],
    ran: int,
    approved: bool,
    shuffle: random.Random,
) -> None:
    """The answer is Run, Hold or a Skip with a known code and a reason; asked again with shuffled facts, the same."""
    facts = Facts(at(400), history, ran_before=ran, approved=approved, later_due=(at(310),))
    decision = decide(given_rule, occurrence, facts)
    match decision:
        case Skip():
            assert decision.code in CODES
            assert decision.text
        case Hold():
            assert occurrence.cause == "schedule"
            assert not (approved and given_rule.on_missed == "ask")
            assert given_rule.on_missed != "skip"
        case Run():
            assert given_rule.enabled
            assert not decision.cancel or given_rule.on_overlap == "cancel_running"
    shuffled = list(history)
    shuffle.shuffle(shuffled)
    again = Facts(at(400), shuffled, ran_before=ran, approved=approved, later_due=(at(310),))
    assert decide(given_rule, occurrence, again) == decision


@given(rules, occurrences, histories(), st.integers(0, 5))
def test_a_person_is_refused_only_by_the_switch_and_by_overlap(
    given_rule: HeartbeatRule, occurrence: Occurrence, history: list[RunFact], ran: int
) -> None:
    """Run-now is never held, and never skipped for a rule about when."""
    now = Occurrence("r", occurrence.due, occurrence.run_id, "manual", occurrence.started)
    decision = decide(given_rule, now, Facts(at(400), history, ran_before=ran))
    assert isinstance(decision, Run) or (isinstance(decision, Skip) and decision.code in ("disabled", "overlap"))


@dataclass
class SimulatedRun:
    """A run on the simulated server. It starts, asks the gate a little later, and works if it may."""

    number: int
    due: float
    start: float
    asks: float
    works: float
    acted: bool | None = None

    def fact(self, now: float) -> RunFact:
        """As the server tells of it at `now`."""
        began, end = at(self.start), self.start + self.works
        if now < self.start:
            return RunFact(UUID(int=self.number), at(self.due), True, "waiting")
        if self.acted is False:
            return RunFact(UUID(int=self.number), at(self.due), True, "settled", began, at(self.asks))
        if self.acted and now >= end:
            return RunFact(UUID(int=self.number), at(self.due), True, "ran", began, at(end))
        return RunFact(UUID(int=self.number), at(self.due), True, "running", began)


def play(given_rule: HeartbeatRule, runs: list[SimulatedRun]) -> list[SimulatedRun]:
    """Let each run ask the gate at its time; gives those that acted."""
    for run in sorted(runs, key=lambda run: (run.asks, run.number)):
        me = Occurrence("r", at(run.due), UUID(int=run.number), "schedule", at(run.start))
        facts = Facts(at(run.asks), [other.fact(run.asks) for other in runs])
        run.acted = isinstance(decide(given_rule, me, facts), Run)
    return [run for run in runs if run.acted]


def simulated(least_work: int, same_due: bool) -> st.SearchStrategy[list[SimulatedRun]]:
    """Runs whose starts, questions and lengths are anything."""
    one = st.tuples(st.integers(0, 30), st.integers(0, 20), st.integers(0, 5), st.integers(least_work, least_work + 60))
    return st.lists(one, min_size=1, max_size=7).map(
        lambda found: [
            SimulatedRun(n, 0 if same_due else due, due + wait, due + wait + think, think + works)
            for n, (due, wait, think, works) in enumerate(found, 1)
        ]
    )


@given(simulated(1000, same_due=False))
def test_of_runs_that_overlap_exactly_one_runs(runs: list[SimulatedRun]) -> None:
    """on_overlap = "skip": whatever the interleaving of starts and questions, the first to start is the one."""
    acted = play(rule(on_overlap="skip"), runs)
    assert acted == [min(runs, key=lambda run: (run.start, run.number and str(UUID(int=run.number))))]


@given(simulated(0, same_due=False))
def test_a_rule_that_skips_overlaps_never_works_twice_at_once(runs: list[SimulatedRun]) -> None:
    """At no instant are two runs of the rule at work; and somebody works."""
    acted = sorted(play(rule(on_overlap="skip"), runs), key=lambda run: run.start)
    assert acted
    for earlier, later in pairwise(acted):
        assert earlier.start + earlier.works <= later.start


@given(simulated(0, same_due=True), st.sampled_from(["allow", "skip", "cancel_running", "queue_one", "queue_all"]))
def test_of_duplicates_exactly_one_runs(runs: list[SimulatedRun], policy: str) -> None:
    """However many runs stand for one due time, and however they start, one of them acts."""
    assert len(play(rule(on_overlap=policy), runs)) == 1


@dataclass
class Queued:
    """A run in a simulated queue that lets one in at a time, in any order."""

    number: int
    due: int
    works: int
    began: int | None = None
    ended: int | None = None
    skipped: bool = False

    def fact(self, now: int) -> RunFact:
        key, due = UUID(int=self.number), at(self.due)
        if self.skipped:
            assert self.began is not None
            return RunFact(key, due, True, "settled", at(self.began), at(self.began))
        if self.began is None:
            return RunFact(key, due, True, "waiting")
        if self.ended is None or now < self.ended:
            return RunFact(key, due, True, "running", at(self.began))
        return RunFact(key, due, True, "ran", at(self.began), at(self.ended))


@given(st.lists(st.tuples(st.integers(0, 60), st.integers(1, 25)), min_size=1, max_size=10), st.randoms())
def test_queue_one_never_has_two_waiting(found: list[tuple[int, int]], order: random.Random) -> None:
    """Whoever comes while one run works and another waits is skipped, in whatever order Prefect lets them in."""
    runs = [Queued(number, due, works) for number, (due, works) in enumerate(found, 1)]
    queue, now, free_at = rule(on_overlap="queue_one", on_missed="run"), 0, 0
    while any(run.began is None for run in runs):
        waiting = [run for run in runs if run.began is None and run.due <= now]
        if now < free_at or not waiting:
            now += 1
            continue
        run = order.choice(waiting)
        run.began = now
        me = Occurrence("r", at(run.due), UUID(int=run.number), "schedule", at(now))
        facts = Facts(at(now), [other.fact(now) for other in runs if other is not run and other.due <= now])
        if isinstance(decide(queue, me, facts), Run):
            run.ended = free_at = now + run.works
        else:
            run.skipped = True
    ran = [run for run in runs if not run.skipped]
    assert ran
    for run in ran:
        others = [one for one in ran if one is not run and one.began is not None and one.ended is not None]
        busy = [one for one in others if (one.began or 0) <= run.due < (one.ended or 0)]
        before = [one for one in others if (one.due, one.number) < (run.due, run.number) and (one.began or 0) > run.due]
        assert not (busy and before), (run, busy, before)
