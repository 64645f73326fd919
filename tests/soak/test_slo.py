"""Service levels: each is broken by what it promises against, and by nothing having been seen at all."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from proactive_prefect.soak.slo import Limits, Seen, percentile, verdicts

GOOD = Seen(
    expected=10,
    outcomes={"quiet": 10},
    lags=[0.1] * 10,
    freshness=[0.2] * 30,
    calls=4,
    accepts=[0.05] * 4,
    probes=200,
    calendar=[0.1] * 4,
)


def broken(seen: Seen) -> set[str]:
    return {one.name for one in verdicts(seen, Limits()) if not one.holds}


def test_all_hold_where_all_is_well() -> None:
    """Nothing is broken, and each level tells what was measured."""
    assert broken(GOOD) == set()
    assert all(one.measured for one in verdicts(GOOD, Limits()))


@pytest.mark.parametrize(
    ("change", "level"),
    [
        ({"without": ["soak-cron due 12:00:00"]}, "complete"),
        ({"expected": 0}, "complete"),
        ({"doubled": ["soak-cron due 12:00:00"]}, "once"),
        ({"lags": [0.1] * 50 + [11.0]}, "start lag"),
        ({"lags": []}, "start lag"),
        ({"freshness": [30.0]}, "freshness"),
        ({"refused_calls": ["503"]}, "webhooks"),
        ({"lost_calls": ["delivery a"]}, "webhooks"),
        ({"accepts": [3.1]}, "accept"),
        ({"failed_probes": ["/readyz: 503"] * 3}, "available"),
        ({"calendar": [1.5]}, "calendar"),
        ({"gaps": ["7 to 8"]}, "log"),
        ({"undecided": 1}, "stasis"),
    ],
)
def test_each_level_breaks_alone(change: dict[str, Any], level: str) -> None:
    """One thing wrong breaks one level."""
    assert broken(replace(GOOD, **change)) == {level}


def test_offenders_are_named_and_their_number_is_bounded() -> None:
    """The first five by name, the rest by count."""
    [complete, *_] = verdicts(replace(GOOD, without=[f"r{n}" for n in range(9)]), Limits())
    assert complete.detail == "r0; r1; r2; r3; r4 and 4 more"


def test_percentiles_are_of_values_that_were_seen() -> None:
    """Nearest rank."""
    assert percentile([], 0.99) == 0.0
    assert percentile([5.0], 0.99) == 5.0
    assert percentile([float(n) for n in range(1, 101)], 0.99) == 99.0
