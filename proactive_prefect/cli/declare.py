"""Commands on the rules file: init, check, next, plan, apply, render, schema."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import cyclopts

from .output import Json, as_json, line, note, progress, stdout, table

if TYPE_CHECKING:
    from ..deploy.plan import Plan


def init(folder: Path = Path(), /) -> None:
    """Write a new project into a folder: rules that work on any machine, and the flows that run them.

    What is there already is never overwritten.

    For example:

        proactive init
        proactive init my-project

    Parameters
    ----------
    folder:
        Where to. Default: this folder.
    """
    from ..errors import InputError
    from .scaffold import write_project

    try:
        written, kept = write_project(folder)
    except OSError as error:
        raise InputError(f"cannot write to {folder}: {error.strerror}") from None
    for path in kept:
        note(f"kept {folder / path}: it was there already")
    for path in written:
        line(f"wrote {folder / path}")
    if folder.resolve() != Path().resolve():
        line(f"Next: cd {folder}")
    line("Next: proactive check")
    line("Next: proactive up")


def check(file: str | None = None, /, *, json: Json = False) -> int:
    """Check the rules file, and report every mistake in it with file, line and key.

    For example:

        proactive check
        proactive check other/proactive.yaml

    Parameters
    ----------
    file:
        The rules file. Default: PROACTIVE_CONFIG, else the project's.
    """
    from ..errors import ConfigError
    from ..settings import Settings
    from .context import declared_here

    try:
        declared = declared_here(Settings(), file)
    except ConfigError as error:
        if not json:
            raise
        mistakes = [
            {"file": error.file, "line": one.line, "path": one.path, "found": one.found, "allowed": one.allowed}
            for one in error.mistakes
        ]
        as_json({"ok": False, "mistakes": mistakes})
        return error.exit_code
    rules = declared.rulebook.rules
    if json:
        enabled = declared.rulebook.proactive.enabled
        as_json({"ok": True, "file": declared.config, "enabled": enabled, "rules": [rule.id for rule in rules]})
    else:
        line(f"{declared.config}: {len(rules)} rule{'' if len(rules) == 1 else 's'}, no mistakes")
    return 0


def next_(
    rule: str | None = None,
    /,
    *,
    count: Annotated[int, cyclopts.Parameter(name=("--count", "-n"))] = 10,
    json: Json = False,
) -> None:
    """Say when rules will run next, by the rules file, in each rule's own local time.

    Times at which a rule is due, but its conditions let nothing run, are left out.

    For example:

        proactive next
        proactive next daily-summary -n 20

    Parameters
    ----------
    rule:
        The rule's id. Default: all rules together.
    count:
        How many times, at most 1000.
    """
    from itertools import islice

    from ..errors import InputError
    from ..firing.foreseen import next_runs
    from ..rules.phrases import instant, timezone_of
    from ..settings import Settings
    from .context import declared_here, unknown_rule

    if not 1 <= count <= 1000:
        raise InputError(f"-n {count} is out of bounds; allowed: 1 to 1000")
    declared = declared_here(Settings())
    chosen = declared.rulebook.rules
    if rule is not None:
        chosen = tuple(one for one in chosen if one.id == rule)
        if not chosen:
            raise unknown_rule(rule, (one.id for one in declared.rulebook.rules), "in the rules file")
    now = datetime.now(UTC)
    due = sorted(
        ((at, one) for one in chosen for at in next_runs(one, now, count)),
        key=lambda pair: (pair[0], pair[1].id),
    )
    fires = list(islice(due, count))
    if json:
        as_json([{"rule": one.id, "due": at, "local": instant(at, timezone_of(one))} for at, one in fires])
    elif fires:
        table(("when", "rule"), ((instant(at, timezone_of(one)), one.id) for at, one in fires))
    else:
        note("nothing is due: " + ("it is called, not scheduled, or not enabled" if rule else "no enabled schedule"))


def plan(*, json: Json = False) -> int:
    """Show what `apply` would change on the server, next fires, clock changes, crowded minutes and runs a day.

    Nothing is written. Exit code 3 if there is a difference.

    For example:

        proactive plan
        proactive plan --json
    """
    return asyncio.run(_plan(json))


async def _plan(json: bool) -> int:
    from .context import connected, declared_here, server_settings

    settings = server_settings()  # before Prefect is imported

    declared = declared_here(settings)
    async with connected(settings) as api:
        found = await _make_plan(api, declared, settings)
    if json:
        as_json(found.to_json())
    else:
        from ..deploy.show import show_plan

        stdout().print(show_plan(found))
    return 3 if found.differs or found.obstacles else 0


def apply(*, json: Json = False) -> None:
    """Make the server what the rules file says, with the least change.

    For example:

        proactive apply
    """
    asyncio.run(_apply(json))


async def _apply(json: bool) -> None:
    from .context import connected, declared_here, server_settings

    settings = server_settings()  # before Prefect is imported
    from ..deploy.apply import apply_plan

    declared = declared_here(settings)
    async with connected(settings) as api:
        found = await _make_plan(api, declared, settings)
        with progress(found.writes, quiet=json) as step:
            await apply_plan(api, found, step)
    if json:
        as_json(found.to_json())
        return
    line(
        f"{len(found.added)} added, {len(found.changed)} changed, {len(found.removed)} removed, "
        f"{found.unchanged} unchanged"
    )


async def _make_plan(api: Any, declared: Any, settings: Any) -> Plan:
    from ..daemon.work import WORKER_TYPE
    from ..deploy.compile import compile_rules
    from ..deploy.plan import make_plan

    project = declared.project(settings)
    return await make_plan(api, compile_rules(declared.rulebook, project), project, pool_type=WORKER_TYPE)


def render(*, out: Path | None = None) -> None:
    """Write prefect.yaml: the same deployments for `prefect deploy --all`.

    For example:

        proactive render
        proactive render --out -

    Parameters
    ----------
    out:
        The file to write; - prints it. Default: prefect.yaml in the project.
    """
    from ..deploy.compile import compile_rules
    from ..deploy.render import render as render_yaml
    from ..settings import Settings, project_root
    from .context import declared_here

    settings = Settings()
    declared = declared_here(settings)
    text = render_yaml(compile_rules(declared.rulebook, declared.project(settings)))
    if out == Path("-"):
        line(text.rstrip("\n"))
        return
    target = out or project_root(declared.config) / "prefect.yaml"
    target.write_text(text, "utf-8")
    line(f"wrote {target}")


def schema() -> None:
    """Print the JSON Schema of the rules file, for editors.

    For example:

        proactive schema > proactive.schema.json
    """
    from ..rules.schema import json_schema

    as_json(json_schema())
