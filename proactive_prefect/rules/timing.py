"""When a rule is due: pure functions of an explicit instant."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from .policies import Dst


@dataclass(frozen=True)
class CronTiming:
    """The times of a five-field cron expression, on the wall clock of `timezone`."""

    cron: str
    timezone: str
    dst: Dst


@dataclass(frozen=True)
class IntervalTiming:
    """Every `every` from `anchor` on; with a splay, shifted by an amount fixed for `splay_key`."""

    every: timedelta
    anchor: datetime
    timezone: str
    splay_key: str | None = None
    splay: timedelta | None = None


@dataclass(frozen=True)
class OnceTiming:
    """One instant."""

    at: datetime


Timing = CronTiming | IntervalTiming | OnceTiming


def check_cron(expression: str) -> None:
    """Raise ValueError, with what is allowed, unless `expression` is a five-field cron expression or an @-name."""
