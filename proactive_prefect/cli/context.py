"""What commands work with: the project, the server that `up` started or Prefect's settings name, and one rule of it."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import TYPE_CHECKING

from ..daemon.declared import Declared, off_notice, read_declared
from ..daemon.reach import connected, find_server, require_server
from ..errors import ConfigError, InputError, UnknownRule
from ..settings import Settings
from .output import note

if TYPE_CHECKING:
    from ..prefect_api.client import PrefectApi
    from ..prefect_api.deployments import DeployedRule


def declared_here(settings: Settings, file: str | None = None) -> Declared:
    """The project of this folder, with the notice on stderr while it is off."""
    from pathlib import Path

    declared = read_declared(settings, Path(file) if file else None)
    if notice := off_notice(declared):
        note(f"note: {notice}")
    return declared


def server_settings() -> Settings:
    """The settings, with Prefect pointed at the right server; to be called before anything imports Prefect."""
    settings = Settings()
    find_server(settings)
    return settings


def project_name(settings: Settings) -> str | None:
    """The project whose rules are meant: that of the rules file here; None (all projects) without a readable one."""
    try:
        return declared_here(settings).name
    except (InputError, ConfigError):
        return None


async def deployed_here(api: PrefectApi, settings: Settings) -> list[DeployedRule]:
    """The deployed rules of the project here, or of all projects where there is no rules file."""
    from ..prefect_api.deployments import deployed_rules

    return await deployed_rules(api, project=project_name(settings))


async def deployed_rule(api: PrefectApi, settings: Settings, rule_id: str) -> DeployedRule:
    """The deployed rule of that id. Raises UnknownRule with near names."""
    found = await deployed_here(api, settings)
    for one in found:
        if one.rule.id == rule_id:
            return one
    raise unknown_rule(rule_id, (one.rule.id for one in found), "is deployed")


def unknown_rule(rule_id: str, known: Iterable[str], what: str) -> UnknownRule:
    """The error for a rule id that is not there, with the nearest that is."""
    ids = sorted(known)
    near = difflib.get_close_matches(rule_id, ids, n=1, cutoff=0.5)
    if near:
        hint = f"did you mean {near[0]!r}?"
    elif ids:
        hint = "There are: " + ", ".join(ids[:20]) + (" …" if len(ids) > 20 else "")
    else:
        hint = "None at all: has `proactive apply` or `proactive up` been run?"
    return UnknownRule(f"no rule {rule_id!r} {what}", hint=hint)


__all__ = [
    "connected",
    "declared_here",
    "deployed_here",
    "deployed_rule",
    "find_server",
    "project_name",
    "require_server",
    "server_settings",
    "unknown_rule",
]
