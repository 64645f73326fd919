"""Blocks that rules name as "type/name": found, never read for what they keep."""

from __future__ import annotations

from dataclasses import dataclass

from .client import PrefectApi, Refused


@dataclass(frozen=True)
class Block:
    """A block document. `capabilities` are its type's: "notify" for one that can send a message."""

    id: str
    capabilities: frozenset[str]


async def find_block(api: PrefectApi, type_slug: str, name: str) -> Block | None:
    """The block of that type and name, or None."""
    try:
        # Prefect gives the values of a block's secrets only where they are asked for.
        found = await api.get(f"/block_types/slug/{type_slug}/block_documents/name/{name}", include_secrets=False)
    except Refused as refused:
        if refused.status == 404:
            return None
        raise
    return Block(found["id"], frozenset(found["block_schema"]["capabilities"]))
