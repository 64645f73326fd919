"""Prefect is given more while it takes it, and half as much when it does not."""

from __future__ import annotations

from proactive_prefect.prefect_api.client import gap
from proactive_prefect.webhooks.pace import LEAST_RUNS, MOST_RUNS, Pace


def test_a_refusal_halves_the_calls_and_makes_them_wait_longer_each_time() -> None:
    """Never fewer than one call, never longer than a quarter of a minute; one success ends the waiting."""
    pace = Pace(8)
    pauses = []
    for _ in range(12):
        pace.refused()
        pauses.append(pace.pause)
        assert 0 < pace.wait() <= pace.pause
    assert int(pace.calls) == 1
    assert pauses == sorted(pauses)
    assert pauses[-1] == 15
    pace.took(1, 0.1)
    assert pace.wait() == 0


def test_a_call_that_is_not_answered_in_time_asks_for_less_each_time() -> None:
    """Down to a single run, since nothing is left of a call that was broken off; it grows again when calls go well."""
    pace = Pace(1)
    for _ in range(10):
        pace.refused(in_time=False)
    assert pace.size == 1
    pace.took(1, 9)
    assert pace.size == 1
    for _ in range(20):
        pace.took(int(pace.size), 0.3)
    assert pace.size == MOST_RUNS


def test_a_locked_database_is_asked_again_soon_by_one_call_at_a_time() -> None:
    """No call waits longer for the next look than two seconds, however often it was locked."""
    pace = Pace(8)
    for _ in range(100):
        pace.took(10, 0.1)
    assert pace.calls == 8
    pace.locked()
    assert (int(pace.calls), pace.wait()) == (1, 0)
    assert all(0.05 <= gap(tries) <= 2 for tries in (1, 2, 10, 1000))


def test_calls_come_back_one_after_another() -> None:
    """After a refusal it takes several successes to try one call more; there are never more than set."""
    pace = Pace(4)
    assert int(pace.calls) == 1
    for _ in range(100):
        pace.took(1, 0.1)
    assert pace.calls == 4
    pace.refused()
    assert int(pace.calls) == 2
    for _ in range(5):
        pace.took(1, 0.1)
    assert int(pace.calls) == 2
    for _ in range(100):
        pace.took(1, 0.1)
    assert pace.calls == 4


def test_a_call_creates_as_many_runs_as_leave_others_their_turn() -> None:
    """More while full calls are quick, fewer when they are very slow; a small call says nothing about large ones."""
    pace = Pace(1)
    first = pace.size
    pace.took(1, 0.05)
    assert pace.size == first
    for _ in range(10):
        pace.took(int(pace.size), 0.3)
    assert pace.size == MOST_RUNS
    pace.took(MOST_RUNS, 5)
    assert pace.size == MOST_RUNS
    pace.took(MOST_RUNS, 9)
    assert pace.size == MOST_RUNS / 2
    for _ in range(10):
        pace.took(int(pace.size), 9)
    assert pace.size == LEAST_RUNS
