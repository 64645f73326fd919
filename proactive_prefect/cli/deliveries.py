"""`proactive deliveries`: the inbox of the webhooks."""

from __future__ import annotations

import asyncio
import json as _json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import cyclopts

from .output import Json, as_json, line, note, table

if TYPE_CHECKING:
    from ..webhooks.desk import DeliveryCard

deliveries = cyclopts.App(
    name="deliveries", help="List, show, replay and erase what webhooks have accepted.", result_action="return_value"
)


@deliveries.default
@deliveries.command(name="list")
def list_(
    *,
    webhook: str | None = None,
    status: str | None = None,
    n: Annotated[int, cyclopts.Parameter(name=("-n", "--count"))] = 20,
    json: Json = False,
) -> None:
    """List the latest deliveries, the latest first.

    Examples:

        proactive deliveries
        proactive deliveries list --webhook deploys --status undeliverable

    Parameters
    ----------
    webhook:
        Only those of this rule.
    status:
        waiting, dispatched, skipped, joined or undeliverable.
    n:
        How many.
    """
    asyncio.run(_list(webhook, status, max(n, 0), json))


@deliveries.command
def show(delivery: str, /, *, json: Json = False) -> None:
    """Show a delivery with its headers, redacted, and its payload: what a stranger wrote.

    Parameters
    ----------
    delivery:
        Its id, or the sender's own.
    """
    asyncio.run(_show(delivery, json))


@deliveries.command
def replay(delivery: str, /, *, json: Json = False) -> None:
    """Accept a delivery once more, as a new one; a gateway dispatches it within a second or two.

    Parameters
    ----------
    delivery:
        Its id, or the sender's own.
    """
    asyncio.run(_replay(delivery, json))


@deliveries.command
def erase(
    delivery: str | None = None, /, *, webhook: str | None = None, before: str | None = None, json: Json = False
) -> None:
    """Take away what callers sent, headers and payload; what became of the deliveries stays.

    Examples:

        proactive deliveries erase 01a1fa832a4385ba287e0c42
        proactive deliveries erase --webhook signups --before 2026-03-01T00:00Z

    Parameters
    ----------
    delivery:
        The id of one, or its sender's own.
    webhook:
        All that are settled of this rule.
    before:
        All that are settled and came before this instant.
    """
    asyncio.run(_erase(delivery, webhook, before, json))


async def _list(rule_id: str | None, status: str | None, count: int, json: bool) -> None:
    from typing import get_args

    from ..errors import InputError
    from ..ledger.db import open_ledger
    from ..ledger.deliveries import Status
    from ..ledger.delivery_log import last_deliveries
    from ..settings import Settings
    from ..webhooks.desk import card

    if status is not None and status not in get_args(Status):
        raise InputError(f"{status!r} is no status; allowed: {', '.join(get_args(Status))}")
    async with open_ledger(Settings()) as ledger, ledger.read() as session:
        found = [card(one) for one in await last_deliveries(session, count, rule_id=rule_id, status=status)]
    if json:
        as_json([one.model_dump(mode="json") for one in found])
        return
    if found:
        rows = ((one.id, _at(one), one.webhook, one.status, _named(one), one.reason) for one in found)
        table(("delivery", "when", "webhook", "status", "sender's id", "said"), rows)
    else:
        note("no deliveries yet: the gateway, which `proactive up` runs, takes them")


async def _show(name: str, json: bool) -> None:
    from ..ledger.db import open_ledger
    from ..settings import Settings
    from ..webhooks.desk import detail

    async with open_ledger(Settings()) as ledger:
        found = await detail(ledger, name)
    if json:
        as_json(found.model_dump(mode="json"))
        return
    line(_in_words(found))
    if found.run_id:
        line(f"run       {found.run_url or found.run_id}")
    if found.joined_to:
        line(f"joined    {found.joined_to}")
    if found.replay_of:
        line(f"replay of {found.replay_of}")
    if found.erased_at:
        line(f"erased    {found.erased_at:%Y-%m-%d %H:%M:%S}Z")
    for header, value in found.headers.items():
        line(f"header    {header}: {_json.dumps(value)}")
    line(f"payload   {_json.dumps(found.payload)}")


async def _replay(name: str, json: bool) -> None:
    from ..ledger.db import open_ledger
    from ..settings import Settings
    from ..webhooks.desk import replay

    async with open_ledger(Settings()) as ledger:
        made = await replay(ledger, name)
    if json:
        as_json(made.model_dump(mode="json"))
    else:
        line(f"{made.id}: accepted, as a replay of {made.replay_of}")


async def _erase(name: str | None, rule_id: str | None, before: str | None, json: bool) -> None:
    from ..errors import InputError
    from ..ledger.db import open_ledger
    from ..settings import Settings
    from ..webhooks.desk import take_all_away, take_away
    from .account import instant

    if (name is None) == (rule_id is None and before is None):
        raise InputError("name one delivery, or all of a --webhook, or all --before an instant")
    async with open_ledger(Settings()) as ledger:
        if name is not None:
            found = await take_away(ledger, name)
        else:
            found = await take_all_away(ledger, rule_id, instant(before) if before else None)
    if json:
        as_json(found.model_dump(mode="json"))
    else:
        line(f"erased: {found.erased}")


def _in_words(one: DeliveryCard) -> str:
    return "  ".join(part for part in (one.id, _at(one), one.webhook, one.status, _named(one), one.reason) if part)


def _at(one: DeliveryCard) -> str:
    at: datetime = one.received_at.astimezone(UTC)
    return f"{at:%Y-%m-%d %H:%M:%S}Z"


def _named(one: DeliveryCard) -> str:
    """The id that the sender chose, as JSON text, in which nothing can move the cursor; "" where it chose none."""
    return "" if one.delivery_id == one.id else _json.dumps(one.delivery_id)
