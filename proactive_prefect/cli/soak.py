"""`proactive soak`: run rules of all kinds for a while, and hold what became of them to service levels."""

from __future__ import annotations

import asyncio
import os
import signal
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import cyclopts

from .output import Json, as_json, line, note, table

if TYPE_CHECKING:
    from ..soak.slo import Limits, Seen, Verdict


def soak(
    *,
    duration: str = "60s",
    interval: str = "15s",
    max_lag: Annotated[float, cyclopts.Parameter(help="Seconds that 99% of the runs may start late.")] = 10.0,
    json: Json = False,
) -> int:
    """Run rules of all kinds for a while, and check the service levels: the gate before a release or a roll-out.

    It uses the `proactive up` that runs in this project, beside its own rules; without one it starts one in a scratch
    folder. Its rules (soak-…) are taken away at the end. Ctrl-C ends it early, with the report so far.

    Exit code 1 if a service level is broken.

    Examples:

        proactive soak
        proactive soak --duration 24h --json > soak.json

    Parameters
    ----------
    duration:
        How long, such as 60s or 24h.
    interval:
        How often everything is looked at.
    """
    from ..soak.slo import Limits, verdicts

    limits = Limits(start_lag=max_lag)
    seen = asyncio.run(_soak(duration, interval))
    found = verdicts(seen, limits)
    _report(seen, found, limits, json)
    return 0 if all(verdict.holds for verdict in found) else 1


async def _soak(duration: str, interval: str) -> Seen:
    from ..errors import InputError
    from ..rules.durations import parse_duration
    from ..settings import Settings

    try:
        length, between = parse_duration(duration), parse_duration(interval)
    except ValueError as error:
        raise InputError(str(error)) from None
    settings = Settings()
    from ..daemon.upfile import read_up_file

    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    if (running := read_up_file(settings.home)) is not None:
        os.environ["PREFECT_API_URL"] = running["prefect_api_url"]  # before Prefect is imported
    from ..prefect_api.address import use_api_url
    from ..soak.run import place, soak
    from .scaffold import write_project

    async with place(settings, Path.cwd(), write_project, note) as where:
        with use_api_url(where.up["prefect_api_url"]):
            return await soak(where, length, between, stop, note)


def _report(seen: Seen, found: list[Verdict], limits: Limits, json: bool) -> None:
    holds = all(verdict.holds for verdict in found)
    if json:
        as_json(
            {
                "holds": holds,
                "levels": [asdict(one) for one in found],
                "limits": asdict(limits),
                "outcomes": seen.outcomes,
            }
        )
        return
    table(
        ("", "level", "promise", "measured"),
        [("ok" if one.holds else "BROKEN", one.name, one.promise, one.measured) for one in found],
    )
    for one in found:
        if one.detail:
            line(f"{one.name}: {one.detail}")
    line(f"outcomes: {', '.join(f'{count} {name}' for name, count in sorted(seen.outcomes.items())) or 'none'}")
    line("every service level holds" if holds else "a service level is broken")
