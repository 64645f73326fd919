"""Blocks that rules name as "type/name"."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from .client import PrefectApi, Refused


@dataclass(frozen=True)
class Block:
    """A block document. `capabilities` are its type's: "notify" for one that can send a message.

    `url` is where it would call without looking whether that is inside; None where it looks, or calls none. It may hold
    a secret.
    """

    id: str
    capabilities: frozenset[str]
    url: str | None = field(default=None, repr=False)


async def find_block(api: PrefectApi, type_slug: str, name: str) -> Block | None:
    """The block of that type and name, or None."""
    try:
        found = await api.get(f"/block_types/slug/{type_slug}/block_documents/name/{name}", include_secrets=True)
    except Refused as refused:
        if refused.status == 404:
            return None
        raise
    kept: dict[str, Any] = found["data"]
    url = kept.get("url") if kept.get("allow_private_urls") is not False else None
    return Block(found["id"], frozenset(found["block_schema"]["capabilities"]), url if isinstance(url, str) else None)
