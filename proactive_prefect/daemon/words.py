"""Distances in time and runs in words, as the board and the command print them."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any


def distance(at: datetime, now: datetime) -> str:
    """How far an instant is from now, in one unit or two: "in 4m 10s", "2h 5m ago"."""
    seconds = round((at - now).total_seconds())
    text = span(timedelta(seconds=abs(seconds)))
    return f"in {text}" if seconds >= 0 else f"{text} ago"


def span(length: timedelta) -> str:
    """A length of time for reading, in at most two units: "1.2s", "4m 10s", "2d 3h"."""
    seconds = length.total_seconds()
    if seconds < 10 and seconds != round(seconds):
        return f"{seconds:.1f}s"
    parts, rest = [], round(seconds)
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60), ("s", 1)):
        count, rest = divmod(rest, size)
        if count:
            parts.append(f"{count}{unit}")
    return " ".join(parts[:2]) or "0s"


def read_instant(text: str | None) -> datetime | None:
    """An instant as Prefect's JSON has it."""
    return datetime.fromisoformat(text) if text else None


def ran(run: dict[str, Any] | None, now: datetime) -> str:
    """How a run ended and when, or since when it is at work: "Completed, 2m ago", "Running for 5s"."""
    if run is None:
        return "–"
    if run["state_type"] in ("RUNNING", "CANCELLING") and (began := read_instant(run.get("start_time"))):
        return f"{run['state_name']} for {span(max(now - began, timedelta(0)))}"
    at = read_instant(run.get("end_time") or run.get("start_time"))
    return f"{run['state_name']}{f', {distance(at, now)}' if at else ''}"
