"""`${env:NAME}` and `${secret:block-name}` in a rule's values, filled in when an action runs, and never before.

`NAME` is taken from the environment of the process that runs the action; `block-name` names a Prefect Secret block.
`$${env:NAME}` stands for the text `${env:NAME}`. Any other `${…}` is left as it is. What is filled in is not looked
at again: a secret that contains `${env:…}` is that text.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import AsyncExitStack
from typing import Any

from ..errors import ActionError, SecretMissing
from ..prefect_api import PrefectApi, Refused, connect
from .masking import Masker

_REFERENCE = re.compile(r"(?P<escape>\$)?\$\{(?P<kind>env|secret):(?P<name>[^{}]*)\}")
_NAMES = {"env": re.compile(r"[A-Za-z_]\w*"), "secret": re.compile(r"[a-z0-9][a-z0-9-]*")}


async def resolve(value: Any, *, masker: Masker | None = None, where: str = "", api: PrefectApi | None = None) -> Any:
    """`value` (JSON: a text, or lists and tables of it) with every reference in its texts filled in; keys stay.

    All that was filled in is registered with `masker`. `where` is the key's path, for errors. Prefect is asked only
    where a Secret block is named, over `api` or a connection of its own.
    Raises SecretMissing (it has the name, never a value), ActionError on a malformed reference, PrefectError.
    """
    known: dict[str, str] = {}
    async with AsyncExitStack() as stack:
        for kind, name, place in _named(value, where):
            reference = f"${{{kind}:{name}}}"
            if reference in known:
                continue
            if kind == "env":
                found = os.environ.get(name)
                missing, hint = "is not set", "It is read from the environment of the worker that runs the rule."
            else:
                if api is None:
                    api = await stack.enter_async_context(connect())
                found = await _read_secret(api, name)
                missing, hint = "names no Prefect Secret block", "Create one in Prefect's UI: Blocks, Secret."
            if found is None:
                raise SecretMissing(f"{place}: {reference} {missing}" if place else f"{reference} {missing}", hint=hint)
            known[reference] = found
            if masker is not None:
                masker.add(found)
    return _fill(value, lambda reference: known[reference])


def _named(value: Any, where: str) -> Iterator[tuple[str, str, str]]:
    for text, place in _texts(value, where):
        for found in _REFERENCE.finditer(text):
            if found["escape"]:
                continue
            kind, name = found["kind"], found["name"]
            if not _NAMES[kind].fullmatch(name):
                raise ActionError(
                    f"{place + ': ' if place else ''}{found[0]!r} is not a reference; "
                    "allowed: ${env:NAME} and ${secret:block-name}; for the text itself write a second $ before it"
                )
            yield kind, name, place


def _texts(value: Any, where: str) -> list[tuple[str, str]]:
    match value:
        case str():
            return [(value, where)]
        case Mapping():
            return [text for key, item in value.items() for text in _texts(item, f"{where}.{key}" if where else key)]
        case list() | tuple():
            return [text for index, item in enumerate(value) for text in _texts(item, f"{where}[{index}]")]
        case _:
            return []


def _fill(value: Any, known: Callable[[str], str]) -> Any:
    match value:
        case str():
            return _REFERENCE.sub(lambda found: found[0][1:] if found["escape"] else known(found[0]), value)
        case Mapping():
            return {key: _fill(item, known) for key, item in value.items()}
        case list() | tuple():
            return [_fill(item, known) for item in value]
        case _:
            return value


async def _read_secret(api: PrefectApi, name: str) -> str | None:
    try:
        block = await api.get(f"/block_types/slug/secret/block_documents/name/{name}", include_secrets="true")
    except Refused as refused:
        if refused.status == 404:
            return None
        raise
    value = block["data"]["value"]
    return value if isinstance(value, str) else json.dumps(value)
