"""Commands about this machine: `up`, `doctor`, `gateway`, `worker`."""

from __future__ import annotations

import asyncio
import os
import sys
from dataclasses import asdict
from typing import Annotated

import cyclopts

from .output import Json, as_json, line


def up() -> None:
    """Run everything on this machine: Prefect's server, the rules, a worker and the gateway.

    An existing Prefect server is used if Prefect's settings name one (PREFECT_API_URL, a profile). State is kept in
    .proactive/ (PROACTIVE_HOME). Ctrl-C ends everything.

    For example:

        proactive up
    """
    from rich.console import Console

    from ..daemon.declared import off_notice, read_declared
    from ..daemon.report import Report
    from ..daemon.up import up as run_up
    from ..settings import Settings

    settings = Settings()
    declared = read_declared(settings)
    report = Report(Console())
    if notice := off_notice(declared):
        report.say(notice, style="bold yellow")
    run_up(settings, declared, report)
    # All is ended and written. The interpreter's own end, with Prefect imported, would take up to a second more.
    sys.stdout.flush()
    os._exit(0)


def gateway() -> None:
    """Serve the gateway alone: webhooks in, the project's state out (`proactive up` runs it too).

    It listens on PROACTIVE_GATEWAY_HOST and PROACTIVE_GATEWAY_PORT (default 127.0.0.1:4280).

    For example:

        PREFECT_API_URL=https://prefect.example.com/api proactive gateway
    """
    from ..gateway.serve import serve
    from ..settings import Settings
    from .context import find_server, require_server

    settings = Settings()
    find_server(settings)
    require_server()
    serve(settings)


def doctor(*, fix: Annotated[bool, cyclopts.Parameter(negative="")] = False, json: Json = False) -> int:
    """Check this installation and what it runs, and say what to do about each thing that is not right.

    Among others: versions that keep Prefect from firing, a scheduler that does not schedule (proved with a schedule
    of its own, removed again), leaked concurrency slots, a clock that is off, a worker that does not poll.

    Exit code 1 if anything fails.

    For example:

        proactive doctor
        proactive doctor --fix --json

    Parameters
    ----------
    fix:
        Repair what can be repaired: leaked concurrency slots.
    """
    return asyncio.run(_doctor(fix, json))


async def _doctor(fix: bool, json: bool) -> int:
    from .context import server_settings

    settings = server_settings()  # before Prefect is imported
    from ..daemon.doctor import examine

    found = []
    async for finding in examine(settings, fix=fix):
        found.append(finding)
        if not json:
            line(f"{finding.level:<5} {finding.check:<10} {finding.text}")
            if finding.todo:
                line(f"{'':<16} -> {finding.todo}")
    if json:
        as_json([asdict(finding) for finding in found])
    return 1 if any(finding.level == "FAIL" for finding in found) else 0


def worker() -> None:
    """Run a worker alone, for the work pool PROACTIVE_WORK_POOL (`proactive up` runs one too).

    The rules' runs need the project's files: start it in the project's folder, on as many machines as you like.

    For example:

        PREFECT_API_URL=https://prefect.example.com/api proactive worker
    """
    from ..daemon.work import work
    from ..settings import Settings
    from .context import find_server

    settings = Settings()
    find_server(settings)
    work(settings)
