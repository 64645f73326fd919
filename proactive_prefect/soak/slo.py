"""The service levels that a soak is held to: pure, from what was seen to a verdict for each."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Limits:
    """What is allowed. Times in seconds, at the 99th percentile."""

    start_lag: float = 10.0
    freshness: float = 10.0
    accept: float = 3.0
    """A gateway waits up to two seconds for the run, to answer with it."""
    calendar: float = 1.0
    available: float = 0.99


@dataclass
class Seen:
    """What was seen in a soak. Times are seconds."""

    expected: int = 0
    """Due moments of the soak's rules."""
    outcomes: dict[str, int] = field(default_factory=dict)
    """What became of them; `none` where nothing is known."""
    without: list[str] = field(default_factory=list)
    """Those without an outcome, in words."""
    doubled: list[str] = field(default_factory=list)
    """Occurrences of which more than one run began."""
    lags: list[float] = field(default_factory=list)
    freshness: list[float] = field(default_factory=list)
    """From when something happened to when the event log had it."""
    calls: int = 0
    refused_calls: list[str] = field(default_factory=list)
    """Webhook calls that were not accepted, in words."""
    accepts: list[float] = field(default_factory=list)
    lost_calls: list[str] = field(default_factory=list)
    """Accepted calls without an outcome."""
    probes: int = 0
    failed_probes: list[str] = field(default_factory=list)
    calendar: list[float] = field(default_factory=list)
    gaps: list[str] = field(default_factory=list)
    """Numbers that the event log lacks."""
    undecided: int = 0
    """Occurrences of the soak that wait in stasis at the end."""


@dataclass(frozen=True)
class Verdict:
    """One service level: what was promised, what was measured, and whether it held. `detail` names offenders."""

    name: str
    promise: str
    measured: str
    holds: bool
    detail: str = ""


def verdicts(seen: Seen, limits: Limits) -> list[Verdict]:
    """Each service level, in the order in which one would look."""
    ended = seen.expected - len(seen.without)
    available = 1 - len(seen.failed_probes) / seen.probes if seen.probes else 0.0
    return [
        Verdict(
            "complete",
            "every due moment has an outcome",
            f"{ended} of {seen.expected}",
            seen.expected > 0 and not seen.without,
            _some(seen.without),
        ),
        Verdict("once", "none runs twice", f"{len(seen.doubled)} twice", not seen.doubled, _some(seen.doubled)),
        _timed("start lag", seen.lags, limits.start_lag),
        _timed("freshness", seen.freshness, limits.freshness),
        Verdict(
            "webhooks",
            "every call is accepted, and every accepted call ends",
            f"{seen.calls - len(seen.refused_calls)} of {seen.calls} accepted, {len(seen.lost_calls)} without an end",
            seen.calls > 0 and not seen.refused_calls and not seen.lost_calls,
            _some([*seen.refused_calls, *seen.lost_calls]),
        ),
        _timed("accept", seen.accepts, limits.accept),
        Verdict(
            "available",
            f"{limits.available:.0%} of the probes are answered",
            f"{available:.2%} of {seen.probes}",
            seen.probes > 0 and available >= limits.available,
            _some(seen.failed_probes),
        ),
        _timed("calendar", seen.calendar, limits.calendar),
        Verdict("log", "the event log has no gap", f"{len(seen.gaps)} gaps", not seen.gaps, _some(seen.gaps)),
        Verdict("stasis", "nothing waits for a decision", f"{seen.undecided} wait", seen.undecided == 0),
    ]


def percentile(values: Sequence[float], share: float) -> float:
    """The value that `share` of them do not exceed; 0 of none."""
    if not values:
        return 0.0
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def _timed(name: str, values: Sequence[float], limit: float) -> Verdict:
    high = percentile(values, 0.99)
    measured = (
        f"p50 {percentile(values, 0.5):.3f} s, p99 {high:.3f} s, max {max(values, default=0.0):.3f} s ({len(values)})"
    )
    return Verdict(name, f"p99 at most {limit:g} s", measured, bool(values) and high <= limit)


def _some(found: Sequence[str]) -> str:
    more = f" and {len(found) - 5} more" if len(found) > 5 else ""
    return "; ".join(found[:5]) + more
