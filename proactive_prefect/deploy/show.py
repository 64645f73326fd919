"""A plan on a terminal."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from .forecast import ClockWarning, Forecast
from .plan import Plan

_MOST = 10


def show_plan(plan: Plan) -> RenderableType:
    """What would change, what is in the way, and what the rules will do."""
    parts: list[RenderableType] = [Text.from_markup(line) for line in _changes(plan)]
    if plan.forecast.fires:
        parts += ["", show_forecast(plan.forecast)]
    return Group(*parts)


def _changes(plan: Plan) -> Iterator[str]:
    for obstacle in plan.obstacles:
        yield f"[red]✗ {escape(obstacle.message)}[/]\n  [dim]{escape(obstacle.hint)}[/]"
    for pool in plan.pools:
        what = f"work pool {pool.name} ({pool.type})" if pool.create else f"work pool {pool.name}"
        yield f"[green]+[/] {escape(what)}: queues {', '.join(pool.queues)}"
    for spec in plan.added:
        yield f"[green]+[/] {spec.flow_name}/{spec.name}"
    for change in plan.changed:
        yield f"[yellow]~[/] {change.spec.flow_name}/{change.spec.name}" + (" (adopted)" if change.adopt else "")
        for field in change.shown:
            yield f"    {escape(str(field))}"
    for found in plan.removed:
        yield f"[red]-[/] {found.flow_name}/{found.name}"
    for sign, names in zip(("[green]+[/]", "[yellow]~[/]", "[red]-[/]"), plan.alerts.to_json().values(), strict=True):
        for name in names:
            yield f"{sign} alert: {escape(name)}"
    counts = f"{len(plan.added)} to add, {len(plan.changed)} to change, {len(plan.removed)} to remove"
    yield f"[bold]{counts if plan.differs else 'No difference'}[/]; {plan.unchanged} unchanged"


def show_forecast(seen: Forecast) -> RenderableType:
    """Next fires in local time, clock changes, crowded minutes, runs a day."""
    table = Table("rule", "next", "runs a day", box=None, header_style="dim", pad_edge=False)
    for fire in seen.fires:
        table.add_row(fire.rule_id, _local(fire.local), str(fire.runs_a_day) if fire.runs_a_day else "")
    lines = [f"{seen.runs_a_day} runs a day"]
    lines += [_clock(warning) for warning in seen.clock_warnings]
    for found in seen.collisions[:_MOST]:
        lines.append(f"{found.minute:%a %H:%M} UTC: {len(found.rules)} rules at once: {_some(found.rules)}")
    if len(seen.collisions) > _MOST:
        lines.append(f"and {len(seen.collisions) - _MOST} more shared minutes (--json names them)")
    return Group(table, "", *(Text(line) for line in lines))


def _local(at: datetime | None) -> str:
    return "–" if at is None else f"{at:%a %Y-%m-%d %H:%M:%S %Z}"


def _clock(warning: ClockWarning) -> str:
    change, rules = warning.change, _some(warning.rules)
    span = f"{change.start:%Y-%m-%d %H:%M} to {change.end:%H:%M} in {warning.timezone}"
    if change.kind == "gap":
        return f"{span} does not exist: moved out of it: {rules}"
    return f"{span} comes twice: runs the first time only: {rules}"


def _some(rules: tuple[str, ...]) -> str:
    return ", ".join(rules[:_MOST]) + (f" and {len(rules) - _MOST} more" if len(rules) > _MOST else "")
