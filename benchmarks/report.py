"""The form in which every benchmark tells its result."""

from __future__ import annotations

import json
import os
import platform
import statistics
from collections.abc import Mapping, Sequence
from importlib.metadata import version

import psutil
from rich.console import Console
from rich.table import Table

_PACKAGES = ("prefect", "fastapi", "sqlalchemy", "pydantic")

Side = Mapping[str, float]


def summarise(seconds: Sequence[float], **more: float) -> dict[str, float]:
    """p50, p99 and max of durations in seconds, and what else a side measured."""
    ordered = sorted(seconds)
    p99 = ordered[min(len(ordered) - 1, round(0.99 * (len(ordered) - 1)))]
    return {"p50": statistics.median(ordered), "p99": p99, "max": ordered[-1], **more}


def report(
    bench: str, *, runs: int, sides: Mapping[str, Side], ratios: Mapping[str, float], database: str = "sqlite"
) -> None:
    """Print the table of `sides`, then one line of JSON. A ratio above 1: ours is better by that factor."""
    columns = list(dict.fromkeys(name for side in sides.values() for name in side))
    table = Table("", *columns, title=f"{bench}: {runs} runs on {database}")
    for name, side in sides.items():
        table.add_row(name, *(f"{side[column]:.3g}" if column in side else "" for column in columns))
    Console().print(table)
    machine = {
        "system": f"{platform.system()} {platform.release()}",
        "database": database,
        "cpus": os.cpu_count(),
        "memory_gb": round(psutil.virtual_memory().total / 2**30, 1),
    }
    versions = {"python": platform.python_version(), **{name: version(name) for name in _PACKAGES}}
    print(
        json.dumps(
            {
                "bench": bench,
                "machine": machine,
                "versions": versions,
                "runs": runs,
                "sides": {name: _rounded(side) for name, side in sides.items()},
                "ratios": _rounded(ratios),
            }
        )
    )


def _rounded(values: Side) -> dict[str, float]:
    return {name: float(f"{value:.4g}") for name, value in values.items()}
