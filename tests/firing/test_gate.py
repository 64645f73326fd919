"""The gate, one line of its table after the other: a rule, an occurrence and facts give one decision."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from proactive_prefect.firing.gate import Decision, Facts, Hold, Occurrence, Run, RunFact, Skip, Stage, decide
from proactive_prefect.rules.conditions import Cause
from proactive_prefect.rules.models import HeartbeatRule, from_snapshot, to_snapshot

DUE = datetime(2026, 3, 4, 10, 0, tzinfo=UTC)  # a Wednesday
ME = UUID(int=100)


def rule(**keys: Any) -> HeartbeatRule:
    """A heartbeat of every 5 minutes, as it arrives in a run."""
    keys = {"id": "disk", "every": "5m", "action": {"type": "python", "call": "a:b"}, **keys}
    read = from_snapshot(to_snapshot(HeartbeatRule.model_validate(keys)))
    assert isinstance(read, HeartbeatRule)
    return read


def at(seconds: float) -> datetime:
    """So many seconds after the due time."""
    return DUE + timedelta(seconds=seconds)


def occurrence(cause: Cause = "schedule", started: float | None = 1, due: float = 0) -> Occurrence:
    return Occurrence("disk", at(due), ME, cause, None if started is None else at(started))


def other(
    stage: Stage,
    *,
    due: float,
    began: float | None = None,
    ended: float | None = None,
    n: int = 1,
    scheduled: bool = True,
) -> RunFact:
    return RunFact(
        UUID(int=n),
        at(due),
        scheduled,
        stage,
        None if began is None else at(began),
        None if ended is None else at(ended),
    )


def facts(*runs: RunFact, now: float = 1.2, **more: Any) -> Facts:
    return Facts(now=at(now), runs=runs, **more)


def code(decision: Decision) -> str:
    """Run, Hold or the code of a Skip."""
    return decision.code if isinstance(decision, Skip) else type(decision).__name__


AN_HOUR_BUSY = other("running", due=-300, began=-299)
JUST_ENDED = other("ran", due=-300, began=-299, ended=-10)


def test_a_due_rule_without_obstacles_runs() -> None:
    """Nothing against it: it runs, and cancels nobody."""
    assert decide(rule(), occurrence(), facts()) == Run()


@pytest.mark.parametrize(
    ("keys", "text"),
    [
        ({"enabled": False}, "disabled: the rule or its project is switched off (enabled = false)"),
        (
            {"conditions": {"active_hours": {"start": "12:00", "end": "17:00", "timezone": "Europe/Berlin"}}},
            "outside_active_hours: 11:00 is not between 12:00 and 17:00 Europe/Berlin",
        ),
        ({"conditions": {"days_of_week": ["mon", "fri"]}}, "wrong_day: wed is not one of mon, fri"),
        ({"conditions": {"environment": ["production"]}}, "environment: development is not one of production"),
        ({"conditions": {"exclude_dates": ["2026-03-04"]}}, "excluded_date: 2026-03-04 is one of exclude_dates"),
        ({"conditions": {"custom": "due.hour > 10"}}, "condition_false: 'due.hour > 10' is false"),
        ({"end_at": "2026-03-04T10:00:00Z"}, "expired: end_at is 2026-03-04 10:00 UTC"),
        ({"start_at": "2026-03-04T10:00:01Z"}, "expired: due before start_at, 2026-03-04 10:00 UTC"),
    ],
)
def test_what_stands_against_a_run_is_told_in_words(keys: dict[str, Any], text: str) -> None:
    """Each reason has its code, and says what was found and what would be allowed."""
    assert str(decide(rule(**keys), occurrence(), facts())) == text


def test_start_is_inclusive_and_end_exclusive() -> None:
    """A rule with start_at and end_at runs at the first of them and not at the second."""
    assert decide(rule(start_at=DUE.isoformat()), occurrence(), facts()) == Run()
    assert code(decide(rule(end_at=DUE.isoformat()), occurrence(), facts())) == "expired"
    assert decide(rule(end_at=at(1).isoformat()), occurrence(), facts()) == Run()


@pytest.mark.parametrize(
    ("wanted", "active", "expected"),
    [(True, True, "Run"), (True, False, "session_inactive"), (False, True, "session_inactive"), (True, None, "Run")],
)
def test_the_session_condition_is_judged_where_the_hook_could_be_asked(
    wanted: bool, active: bool | None, expected: str
) -> None:
    """An answer is compared; where nobody could ask (None) it is left to the run itself."""
    given = rule(conditions={"session_active": wanted}, session_hook="a:b")
    assert code(decide(given, occurrence(), facts(session_active=active))) == expected


@pytest.mark.parametrize(
    ("policy", "expected"),
    [("skip", "overlap"), ("queue_one", "Run"), ("queue_all", "Run"), ("cancel_running", "Run"), ("allow", "Run")],
)
def test_each_overlap_policy_meets_a_running_run(policy: str, expected: str) -> None:
    """skip skips; the queues rely on Prefect to let one in at a time; cancel_running names whom to cancel."""
    decision = decide(rule(on_overlap=policy), occurrence(), facts(AN_HOUR_BUSY))
    assert code(decision) == expected
    if policy == "cancel_running":
        assert decision == Run(cancel=(AN_HOUR_BUSY.run_id,))


def test_overlap_is_judged_at_the_due_time_even_if_the_earlier_run_has_ended_since() -> None:
    """An occurrence that fell into a run stays skipped, however late its gate is asked."""
    ended_since = other("ran", due=-300, began=-299, ended=5)
    assert code(decide(rule(), occurrence(started=20), facts(ended_since))) == "overlap"
    assert decide(rule(), occurrence(started=20), facts(JUST_ENDED)) == Run()


def test_a_run_that_had_to_wait_meets_what_ran_while_it_waited() -> None:
    """Three fired at once on a worker with room for two: the third starts when the first has ended, and is skipped."""
    first = other("ran", due=0, began=2, ended=50, scheduled=False)
    decision = decide(rule(), occurrence("manual", started=90), facts(first, now=90))
    assert str(decision) == (
        f"overlap: run {first.run_id} of this rule was at work from 2026-03-04 10:00:02 UTC to 2026-03-04 10:00:50 UTC"
    )


def test_what_runs_late_by_decision_meets_only_what_runs_then() -> None:
    """on_missed = "run": an occurrence of hours ago is not skipped for a run that came and went since."""
    since = other("ran", due=3000, began=3001, ended=3100)
    late = occurrence(started=7200)
    assert decide(rule(on_missed="run"), late, facts(since, now=7200)) == Run()
    at_work = other("running", due=7100, began=7101)
    assert isinstance(decide(rule(on_missed="run"), late, facts(at_work, now=7200)), Hold)
    assert code(decide(rule(on_missed="ask"), late, facts(at_work, now=7200, approved=True))) == "overlap"


def test_a_run_that_began_later_or_did_nothing_stands_in_nobodys_way() -> None:
    """Later, skipped, held and waiting runs are no overlap."""
    for harmless in (
        other("running", due=0, began=2, scheduled=False),
        other("settled", due=-300, began=-1, ended=0.5),
        other("held", due=-300, began=-299),
        other("waiting", due=-5, scheduled=False),
    ):
        assert decide(rule(), occurrence(), facts(harmless)) == Run(), harmless


def test_an_older_occurrence_never_cancels_a_newer_one() -> None:
    """cancel_running: what is due later wins, in whatever order they start."""
    newer = other("running", due=30, began=31, n=2)
    late = occurrence(started=40)
    assert code(decide(rule(on_overlap="cancel_running"), late, facts(newer))) == "overlap"


def test_queue_one_keeps_one_place() -> None:
    """While a run is at work, the first to come waits for it; who comes then is skipped."""
    busy = other("ran", due=-600, began=-599, ended=50, n=1)
    first = other("waiting", due=-5, n=2, scheduled=False)
    queue = rule(on_overlap="queue_one")
    assert code(decide(queue, occurrence(started=51), facts(busy, first, now=52))) == "overlap"
    assert decide(queue, occurrence(started=51), facts(busy, now=52)) == Run()


def test_queue_one_gives_the_place_free_again() -> None:
    """A run that waited and has begun takes no place, and one that will be skipped itself never had it."""
    busy = other("running", due=-300, began=-200, n=1)
    before = other("ran", due=-900, began=-899, ended=-200, n=2)
    hopeless = other("waiting", due=-250, n=3, scheduled=False)  # came while `busy` itself was waiting for `before`
    queue = rule(on_overlap="queue_one")
    assert decide(queue, occurrence(started=60), facts(before, busy, hopeless)) == Run()


@pytest.mark.parametrize(
    ("on_missed", "expected"), [("ask", "Hold"), ("run", "Run"), ("skip", "stale"), ("latest", "Run")]
)
def test_past_its_grace_a_run_is_missed(on_missed: str, expected: str) -> None:
    """on_missed decides; within the grace it does not matter."""
    given = rule(on_missed=on_missed, grace="60s")
    assert code(decide(given, occurrence(started=61), facts(now=61))) == expected
    assert decide(given, occurrence(started=60), facts(now=60)) == Run()


def test_a_missed_run_says_by_how_much() -> None:
    """The text is for the person who decides."""
    decision = decide(rule(timezone="Europe/Berlin"), occurrence(started=7260), facts(now=7260))
    assert decision == Hold("due 2026-03-04 11:00 Europe/Berlin, found 2h1m later, past its grace of 1m")


def test_latest_runs_only_the_last_of_several_missed() -> None:
    """An earlier one is stale as soon as a later one is due that may run."""
    given = rule(on_missed="latest", conditions={"days_of_week": ["wed"]})
    tomorrow = DUE + timedelta(days=1)
    late = occurrence(started=3600)
    assert code(decide(given, late, facts(later_due=(at(300), at(600))))) == "stale"
    assert decide(given, late, facts(later_due=(tomorrow,))) == Run()


@pytest.mark.parametrize("cause", ["manual", "webhook"])
def test_only_scheduled_runs_can_be_missed(cause: Cause) -> None:
    """A call or a run-now that had to wait runs all the same."""
    assert decide(rule(), occurrence(cause, started=3600), facts(now=3600)) == Run()


def test_waiting_behind_the_own_rule_is_not_lateness() -> None:
    """queue_all: a run that waited an hour for its turn is not missed; the same hour without a reason is."""
    queue = rule(on_overlap="queue_all")
    turns = [other("ran", due=-300, began=-299, ended=1800, n=1), other("ran", due=-100, began=1820, ended=3600, n=2)]
    assert decide(queue, occurrence(started=3630), facts(*turns)) == Run()
    assert code(decide(queue, occurrence(started=3630), facts(turns[1]))) == "Hold"
    assert code(decide(queue, occurrence(started=3800), facts(*turns))) == "Hold"


def test_a_resumed_run_has_been_approved() -> None:
    """It runs in spite of its lateness, conditions and cooldown; not beside another run, and not if switched off."""
    given = rule(conditions={"custom": "false"}, cooldown="1h", max_runs=1)
    late = occurrence(started=3600)
    recent = other("ran", due=3300, began=3301, ended=3500)
    assert decide(given, late, facts(recent, approved=True, ran_before=5)) == Run()
    busy = other("running", due=3300, began=3301)
    assert code(decide(given, late, facts(busy, approved=True))) == "overlap"
    assert code(decide(rule(enabled=False), late, facts(approved=True))) == "disabled"


def test_cooldown_counts_from_the_end_of_the_last_run() -> None:
    """A rule due within its cooldown is skipped, and says when it may start again."""
    given = rule(cooldown="10m")
    decision = decide(given, occurrence(), facts(JUST_ENDED))
    assert code(decision) == "cooldown"
    assert str(decision).endswith(
        "the last run ended 2026-03-04 09:59:50 UTC; the next may start 2026-03-04 10:09:50 UTC"
    )
    assert decide(rule(cooldown="10s"), occurrence(), facts(JUST_ENDED)) == Run()
    skipped = other("settled", due=-300, began=-10, ended=-10)
    assert decide(given, occurrence(), facts(skipped)) == Run()


def test_max_runs_ends_a_rule() -> None:
    """The rule runs as often as it says, and then no more."""
    assert decide(rule(max_runs=3), occurrence(), facts(ran_before=2)) == Run()
    assert str(decide(rule(max_runs=3), occurrence(), facts(ran_before=3))) == "max_runs: the rule has had its 3 runs"


@pytest.mark.parametrize(
    ("twin", "expected"),
    [
        (other("ran", due=0, began=0, ended=0.5), "duplicate"),
        (other("running", due=0, began=0.5), "duplicate"),
        (other("running", due=0, began=1.5), "Run"),
        (other("held", due=0, began=0), "duplicate"),
        (other("settled", due=0, began=0, ended=0), "Run"),
        (other("waiting", due=0), "Run"),
        (other("ran", due=0, began=0, ended=0.5, scheduled=False), "Run"),
    ],
)
def test_of_two_runs_for_one_due_time_the_first_counts(twin: RunFact, expected: str) -> None:
    """A scheduled twin that ran, runs since earlier, or is held makes this one a duplicate."""
    assert code(decide(rule(on_overlap="allow"), occurrence(), facts(twin))) == expected


def test_run_now_needs_no_conditions() -> None:
    """A person who presses Run gets a run: whatever the hour, the day, the cooldown; unless it is off, or overlaps."""
    given = {
        "conditions": {"days_of_week": ["sun"], "environment": ["production"], "custom": "false"},
        "cooldown": "1h",
        "max_runs": 1,
        "end_at": "2020-01-01T00:00:00Z",
    }
    now = occurrence("manual")
    assert decide(rule(**given), now, facts(JUST_ENDED, ran_before=7)) == Run()
    assert code(decide(rule(**given), now, facts(AN_HOUR_BUSY))) == "overlap"
    assert code(decide(rule(enabled=False), now, facts())) == "disabled"


def test_a_webhook_obeys_the_rules_conditions() -> None:
    """A call outside the active hours, or within the cooldown, is skipped."""
    call = occurrence("webhook")
    hours = rule(conditions={"active_hours": {"start": "11:00", "end": "12:00"}})
    assert code(decide(hours, call, facts())) == "outside_active_hours"
    assert code(decide(rule(cooldown="10m"), call, facts(JUST_ENDED))) == "cooldown"


def test_before_the_run_has_started_everything_that_has_begun_is_earlier() -> None:
    """The worker asks before Pending: a run at work is an overlap, whenever it began."""
    asked = occurrence(started=None)
    assert code(decide(rule(), asked, facts(other("running", due=0.5, began=0.5, scheduled=False)))) == "overlap"
    assert decide(rule(), asked, facts()) == Run()
    assert code(decide(rule(), asked, facts(now=3600))) == "Hold"


def test_a_queued_run_is_not_late_while_it_waits_for_the_run_before_it() -> None:
    """Also while that is at work; after it has ended, a grace and the time of Prefect's own tries count."""
    queue = rule(on_overlap="queue_all", grace="60s")
    at_work = other("running", due=-600, began=-599)
    assert decide(queue, occurrence(started=None), facts(at_work, now=3600)) == Run()
    ended = other("ran", due=-600, began=-599, ended=1000)
    assert decide(queue, occurrence(started=None), facts(ended, now=1100)) == Run()
    assert isinstance(decide(queue, occurrence(started=None), facts(ended, now=1200)), Hold)


def test_what_is_too_old_to_be_worth_running_is_stale() -> None:
    """Whatever the rule does with what it missed."""
    for on_missed in ("ask", "run", "latest", "skip"):
        given = rule(on_missed=on_missed, stale_after="1h")
        assert code(decide(given, occurrence(started=None), facts(now=3601))) == "stale"
    assert isinstance(decide(rule(stale_after="1h"), occurrence(started=None), facts(now=3600)), Hold)
    assert decide(rule(stale_after="1h"), occurrence(started=None), facts(now=9999, approved=True)) == Run()
