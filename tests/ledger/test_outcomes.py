"""What became of an occurrence: one answer, whatever the order in which its states are heard."""

from __future__ import annotations

from datetime import timedelta
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proactive_prefect.ledger.outcomes import StateFact, Verdict, join, judge, occurrence_key
from proactive_prefect.ledger.tables import OUTCOMES, Resolution, Run

from .histories import NOON, a_run, histories, shuffled, story


def told(facts: list[StateFact]) -> Run:
    """The summary of a run whose states were heard in this order."""
    run = Run(run_id="run-1", occurrence_id=1)
    for fact in facts:
        join(run, fact)
    return run


def outcome(*states: str) -> Verdict:
    """What became of a run with these states, in order."""
    return judge([told(story(a_run(), *states))])


WAITING = ("SCHEDULED/Scheduled", "PENDING/Pending")
RUNNING = (*WAITING, "RUNNING/Running")


@pytest.mark.parametrize(
    ("states", "wanted", "running"),
    [
        ((), "expected", False),
        (WAITING, "expected", False),
        (RUNNING, "expected", True),
        ((*RUNNING, "COMPLETED/Completed"), "completed", False),
        ((*RUNNING, "COMPLETED/Quiet"), "quiet", False),
        ((*RUNNING, "FAILED/Failed"), "failed", False),
        ((*RUNNING, "FAILED/TimedOut"), "timed_out", False),
        ((*RUNNING, "CRASHED/Crashed"), "unknown", False),
        ((*WAITING, "CRASHED/Crashed"), "failed", False),
        ((*RUNNING, "CANCELLING/Cancelling"), "expected", True),
        ((*RUNNING, "CANCELLING/Cancelling", "CANCELLED/Cancelled"), "cancelled", False),
        ((*RUNNING, "CANCELLED/Skipped"), "skipped", False),
        (("SCHEDULED/Scheduled", "CANCELLED/Skipped"), "skipped", False),
        (("SCHEDULED/Scheduled", "CANCELLED/Cancelled"), "skipped", False),
        (("SCHEDULED/Scheduled", "SCHEDULED/Late", "PAUSED/Missed"), "missed", False),
        ((*RUNNING, "PAUSED/Missed"), "missed", False),
        ((*RUNNING, "PAUSED/Missed", "SCHEDULED/Resuming"), "approved", False),
        ((*RUNNING, "PAUSED/Missed", "SCHEDULED/Resuming", *RUNNING[1:]), "approved", True),
        ((*RUNNING, "PAUSED/Missed", "SCHEDULED/Resuming", *RUNNING[1:], "COMPLETED/Completed"), "completed", False),
        ((*RUNNING, "PAUSED/Missed", "CANCELLED/Cancelled"), "deleted", False),
        ((*RUNNING, "FAILED/Failed", "SCHEDULED/AwaitingRetry", "RUNNING/Running"), "failed", True),
        ((*RUNNING, "FAILED/Failed", "SCHEDULED/AwaitingRetry", "RUNNING/Running", "COMPLETED/Quiet"), "quiet", False),
    ],
    ids=lambda value: "-".join(one.split("/")[1] for one in value) if isinstance(value, tuple) else None,
)
def test_each_history_has_one_outcome(states: tuple[str, ...], wanted: str, running: bool) -> None:
    """A run's states say what became of its occurrence."""
    verdict = outcome(*states)
    assert (verdict.outcome, verdict.running) == (wanted, running)


@given(st.data())
def test_the_order_in_which_states_are_heard_does_not_matter(data: st.DataObject) -> None:
    """Completed before started, everything twice: the summary is the same to the last field."""
    facts = data.draw(histories(a_run()))
    mixed = data.draw(shuffled(facts))
    assert told(mixed).model_dump() == told(facts).model_dump()
    assert judge([told(mixed)]).outcome in OUTCOMES


@given(st.data())
def test_an_older_state_never_takes_an_outcome_back(data: st.DataObject) -> None:
    """Once the whole history is known, hearing any part of it again changes nothing."""
    facts = data.draw(histories(a_run()))
    run = told(facts)
    before = run.model_dump()
    for fact in data.draw(shuffled(facts)):
        join(run, fact)
        assert run.model_dump() == before


ALLOWED: dict[str, set[str]] = {
    "expected": set(OUTCOMES) - {"rescheduled", "approved"},
    "missed": {"approved", "deleted"},
    # A person may approve, and cancel or delete the run in Prefect before it has begun.
    "approved": {"completed", "quiet", "failed", "timed_out", "cancelled", "skipped", "unknown", "deleted"},
    # A person may run a failed one again, in Prefect's UI; or drop it, where the gate held that as too late.
    "failed": {"completed", "quiet", "timed_out", "cancelled", "skipped", "unknown", "deleted"},
}


@given(st.data())
def test_an_outcome_only_moves_forward(data: st.DataObject) -> None:
    """In the order in which things happen, nothing that has ended becomes open again."""
    run, outcomes = Run(run_id="run-1", occurrence_id=1), ["expected"]
    for fact in data.draw(histories(a_run())):
        join(run, fact)
        outcomes.append(judge([run]).outcome)
    for before, after in pairwise(outcomes):
        assert before == after or after in ALLOWED.get(before, set()), outcomes


@given(st.data())
def test_of_several_runs_for_one_moment_one_counts_whichever_is_heard_first(data: st.DataObject) -> None:
    """A redeploy by other means makes a second run for the same time; the order of the two makes no difference."""
    runs = [told(data.draw(histories(a_run(name)))) for name in ("run-1", "run-2", "run-3")]
    for name, run in zip(("run-1", "run-2", "run-3"), runs, strict=True):
        run.run_id = name
    assert judge(data.draw(st.permutations(runs))) == judge(runs)


def test_a_duplicate_that_was_skipped_does_not_hide_the_run_that_ran() -> None:
    """The occurrence was completed, although a second run of it was skipped, later."""
    ran = told(story(a_run(), *RUNNING, "COMPLETED/Completed"))
    skipped = told(story(a_run("run-2"), *RUNNING, "CANCELLED/Skipped", messages=["", "", "", "duplicate: the same"]))
    skipped.run_id = "run-2"
    verdict = judge([skipped, ran])
    assert (verdict.outcome, verdict.run_id) == ("completed", "run-1")


@pytest.mark.parametrize(
    ("action", "states", "wanted"),
    [
        ("reschedule", ("SCHEDULED/Scheduled", "PAUSED/Missed"), "rescheduled"),
        ("reschedule", ("SCHEDULED/Scheduled", "PAUSED/Missed", "CANCELLED/Cancelled"), "rescheduled"),
        ("reschedule", (), "rescheduled"),
        ("delete_missed", ("SCHEDULED/Scheduled", "PAUSED/Missed"), "deleted"),
        ("approve_backfill_run", ("SCHEDULED/Scheduled", "PAUSED/Missed"), "approved"),
        ("approve_backfill_run", (*RUNNING, "COMPLETED/Quiet"), "quiet"),
    ],
)
def test_a_decision_shows_at_once(action: str, states: tuple[str, ...], wanted: str) -> None:
    """What somebody decided is the outcome before Prefect has been told, and until the run itself says more."""
    decided: dict[str, Any] = {"resolved_by": "ann", "via": "api", "at": NOON, "target": NOON + timedelta(hours=1)}
    resolution = Resolution(occurrence_id=1, action=action, **decided)
    runs = [told(story(a_run(), *states))] if states else []
    assert judge(runs, resolution).outcome == wanted


def test_a_key_is_the_instant_in_utc_or_the_delivery() -> None:
    """The same moment has the same key in every timezone."""
    assert occurrence_key(NOON) == "due:2026-03-01T12:00:00.000000+00:00"
    assert occurrence_key(NOON, "abc") == "delivery:abc"
