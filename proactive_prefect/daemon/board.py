"""The board that `proactive up` shows on a terminal: where everything is, and the rules with what comes and what was.

Next fires are computed here; what was is asked of Prefect, four requests each time, every fifteen seconds.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from rich.console import Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from ..errors import PrefectError
from ..firing.foreseen import next_runs
from ..rules.models import WebhookRule
from ..rules.phrases import when
from .declared import Declared, off_notice
from .report import Report
from .upfile import UpFile
from .words import distance, ran

if TYPE_CHECKING:
    from ..prefect_api.client import PrefectApi
    from ..prefect_api.deployments import DeployedRule

ASK_EVERY = 15.0
DRAW_EVERY = 1.0


def curl_line(up_file: UpFile, declared: Declared) -> str | None:
    """A line for the shell that calls the first webhook that takes its secret in a header; None if none does."""
    for rule in declared.rulebook.rules:
        entry = up_file["webhooks"].get(rule.id)
        if isinstance(rule, WebhookRule) and rule.scheme in ("header", "bearer") and entry is not None:
            header = (
                f"Authorization: Bearer {entry['secret']}"
                if rule.scheme == "bearer"
                else f"X-Webhook-Secret: {entry['secret']}"
            )
            return f"curl -H '{header}' -d '{{\"hello\": \"world\"}}' {entry['url']}"
    return None


def addresses(up_file: UpFile) -> list[tuple[str, str]]:
    """Where people look. The page's link logs in whoever opens it."""
    link = f"{up_file['gateway_url']}/?token={quote(up_file['token'], safe='')}"
    return [("Prefect", up_file["prefect_url"]), ("gateway", up_file["gateway_url"]), ("page", link)]


class Board:
    """Draws the board until cancelled; where the output is no terminal, says the addresses once instead."""

    def __init__(self, report: Report, declared: Declared, up_file: UpFile, api: PrefectApi) -> None:
        self._report = report
        self._declared = declared
        self._up_file = up_file
        self._api = api
        self._deployed: list[DeployedRule] = []
        self._last: Mapping[str, dict[str, Any]] = {}
        self._due: dict[str, datetime | None] = {}  # by deployment: to find it can take longer than to draw it

    async def show(self) -> None:
        """Draw again and again; never raises because of a terminal that went away or a Prefect that is busy."""
        if not self._report.console.is_terminal:  # somebody keeps these lines: a log, a journal
            for name, url in addresses(self._up_file):
                self._report.say(f"{name}: {url.partition('?')[0]}")
            self._report.say("the token and the secrets of the webhooks: up.json in PROACTIVE_HOME")
            await asyncio.Event().wait()
        if curl := curl_line(self._up_file, self._declared):  # above the board, where it can be copied whole
            self._report.say(curl, style="bold")
        with Live(console=self._report.console, auto_refresh=False) as live:
            asking = asyncio.create_task(self._ask())
            try:
                while True:
                    with contextlib.suppress(OSError, ValueError):
                        live.update(self.render(datetime.now(UTC)), refresh=True)
                    await asyncio.sleep(DRAW_EVERY)
            finally:
                asking.cancel()

    async def _ask(self) -> None:
        from ..prefect_api.deployments import deployed_rules
        from ..prefect_api.history import last_runs, runs_at_work

        while True:
            with contextlib.suppress(PrefectError):
                self._deployed = await deployed_rules(self._api, project=self._declared.name)
                ids = [found.deployment_id for found in self._deployed]
                self._last = {**await last_runs(self._api, ids), **await runs_at_work(self._api, ids)}
                self._due.clear()
            await asyncio.sleep(ASK_EVERY)

    def render(self, now: datetime) -> RenderableType:
        """The board as of `now`."""
        head = Text()
        for name, url in addresses(self._up_file):
            head.append(f"{name} ", style="dim").append(url, style=f"bold link {url}").append("   ")
        table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
        for column in ("rule", "kind", "when", "next", "last"):
            table.add_column(column, no_wrap=True, overflow="ellipsis")
        height = max(self._report.console.height - 6, 3)
        for found in self._deployed[:height]:
            rule = found.rule
            table.add_row(
                rule.id,
                rule.kind,
                when(rule),
                self._next(found, now),
                Text(ran(self._last.get(found.deployment_id), now), style=_style(self._last.get(found.deployment_id))),
            )
        parts: list[RenderableType] = [head, table]
        if len(self._deployed) > height:
            parts.append(Text(f"and {len(self._deployed) - height} more: proactive list", style="dim"))
        if notice := off_notice(self._declared):
            parts.insert(0, Text(notice, style="bold yellow"))
        return Group(*parts)

    def _next(self, found: DeployedRule, now: datetime) -> str:
        if found.paused:
            return "paused"
        if not found.active:
            return "off"
        due = self._due.get(found.deployment_id, now)
        if due is not None and due <= now:
            due = self._due[found.deployment_id] = next(iter(next_runs(found.rule, now, 1)), None)
        return distance(due, now) if due else "–"


def _style(run: dict[str, Any] | None) -> str:
    match run and run["state_type"]:
        case "COMPLETED":
            return "green"
        case "FAILED" | "CRASHED":
            return "red"
        case _:
            return "dim"
