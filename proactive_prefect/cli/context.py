"""What commands work with: the project, the server that `up` started or Prefect's settings name, and one rule of it."""

from __future__ import annotations

import contextlib
import difflib
import os
from collections.abc import AsyncIterator, Iterable
from typing import TYPE_CHECKING

from ..daemon.declared import Declared, find_config, off_notice, read_declared
from ..daemon.upfile import read_up_file
from ..errors import ConfigError, InputError, PrefectUnreachable, UnknownRule
from ..settings import Settings
from .output import note

if TYPE_CHECKING:
    from ..prefect_api.client import PrefectApi
    from ..prefect_api.deployments import DeployedRule

_FIRST_ANSWER = 3.0  # seconds: a person waits, and a server that is up answers


def declared_here(settings: Settings, file: str | None = None) -> Declared:
    """The project of this folder, with the notice on stderr while it is off."""
    from pathlib import Path

    declared = read_declared(settings, Path(file) if file else None)
    if notice := off_notice(declared):
        note(f"note: {notice}")
    return declared


def find_server(settings: Settings) -> None:
    """Point Prefect, before it is imported, at the server of the `up` that runs here; PREFECT_API_URL comes first."""
    if not os.environ.get("PREFECT_API_URL") and (running := read_up_file(settings.home)) is not None:
        os.environ["PREFECT_API_URL"] = running["prefect_api_url"]


@contextlib.asynccontextmanager
async def connected(settings: Settings) -> AsyncIterator[PrefectApi]:
    """Prefect's API, proved to answer. Raises PrefectUnreachable within seconds if it does not, or if none is named."""
    find_server(settings)
    from ..prefect_api.address import configured_api_url
    from ..prefect_api.client import connect

    hint = "`proactive up` starts a server; PREFECT_API_URL names another."
    if configured_api_url() is None:
        raise PrefectUnreachable("no Prefect server is running for this project", hint=hint)
    async with connect(settings.model_copy(update={"api_patience": _FIRST_ANSWER})) as api:
        if await api.client.api_healthcheck() is not None:
            raise PrefectUnreachable(f"no answer from the Prefect API at {api.url}", hint=hint)
    async with connect(settings) as api:
        yield api


def project_name(settings: Settings) -> str | None:
    """The project whose rules are meant: that of the rules file here; None (all projects) without a readable one."""
    try:
        return read_declared(settings).name
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
    "find_config",
    "find_server",
    "project_name",
    "unknown_rule",
]
