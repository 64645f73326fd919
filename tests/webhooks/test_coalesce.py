"""Many deliveries, one run: which belong together, and when they have waited long enough."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import select
from sqlmodel import col

from proactive_prefect.ledger.db import Ledger
from proactive_prefect.ledger.deliveries import claim, combined, lock_groups, payload_of
from proactive_prefect.ledger.tables import Delivery
from proactive_prefect.rules.coalesce import Coalesce
from proactive_prefect.rules.models import WebhookRule
from proactive_prefect.webhooks.coalesce import close_group, group_of
from proactive_prefect.webhooks.inbox import LEASE, Inbox

from .calls import a_call

BEGAN = datetime.now(UTC) - timedelta(hours=1)
RULE = Coalesce.model_validate({"key": "payload.repo", "window": "30s", "max_wait": "2m"})


def at(seconds: float) -> datetime:
    return BEGAN + timedelta(seconds=seconds)


async def arrive(ledger: Ledger, *calls: tuple[str, float], group: str = "g") -> None:
    """Deliveries that came at these seconds, accepted as the gateway does it."""
    inbox = Inbox(ledger)
    for name, seconds in calls:
        row = a_call(name, received_at=at(seconds), group_key=group, due_at=at(seconds) + RULE.window)
        await inbox.accept({**row, "id": f"{int(seconds):012d}{name}"})


async def look(ledger: Ledger, seconds: float, coalesce: Coalesce | None = RULE) -> dict[str, str]:
    """What a dispatcher takes at that second: by sender's id, the payload that the run gets."""
    now, taken = at(seconds), {}
    async with ledger.write() as session:
        await lock_groups(session)
        for one in await claim(session, "holder", now, now + LEASE, 100):
            if (first := await close_group(session, one, coalesce, now)) is not None:
                taken[first.delivery_id] = await payload_of(session, first, coalesce)
    return taken


async def status(ledger: Ledger) -> dict[str, str]:
    async with ledger.read() as session:
        return {one.delivery_id: one.status for one in (await session.scalars(select(Delivery))).all()}


async def test_deliveries_are_one_run_once_it_has_been_quiet(ledger: Ledger) -> None:
    """Each new one puts the run off by the window; then it gets all of them, in order."""
    await arrive(ledger, ("a", 0), ("b", 20))
    assert await look(ledger, 31) == {}
    await arrive(ledger, ("c", 40))
    assert await look(ledger, 51) == {}
    assert await look(ledger, 69.9) == {}
    assert await look(ledger, 70) == {"a": '[{"n": "a"},{"n": "b"},{"n": "c"}]'}
    assert await status(ledger) == {"a": "waiting", "b": "joined", "c": "joined"}
    assert await look(ledger, 71) == {}


async def test_nobody_waits_longer_than_max_wait(ledger: Ledger) -> None:
    """A sender that never pauses is dispatched all the same; what comes after begins anew."""
    await arrive(ledger, *((str(number), number * 20) for number in range(6)))
    assert await look(ledger, 119) == {}
    assert list(await look(ledger, 120)) == ["0"]
    await arrive(ledger, ("later", 121))
    assert await look(ledger, 150) == {}
    assert await look(ledger, 151) == {"later": '[{"n": "later"}]'}


async def test_what_was_cut_off_gets_the_same_payload_again(ledger: Ledger) -> None:
    """A group that was closed stays as it was closed, whoever takes it next, and whatever came since."""
    await arrive(ledger, ("a", 0), ("b", 1))
    closed = await look(ledger, 40)
    await arrive(ledger, ("c", 41))
    again = await look(ledger, 40 + LEASE.total_seconds() + 1)
    assert again["a"] == closed["a"] == '[{"n": "a"},{"n": "b"}]'
    assert (await look(ledger, 400))["a"] == closed["a"]  # its lease has ended once more


async def test_other_keys_are_other_runs(ledger: Ledger) -> None:
    """Groups do not wait for each other."""
    await arrive(ledger, ("a1", 0), ("a2", 25), group="a")
    await arrive(ledger, ("b1", 1), group="b")
    assert list(await look(ledger, 31)) == ["b1"]
    assert list(await look(ledger, 55)) == ["a1"]


async def test_a_rule_that_coalesces_no_more_waits_no_more(ledger: Ledger) -> None:
    """What still waits together is dispatched at the next look."""
    await arrive(ledger, ("a", 0), ("b", 29))
    assert list(await look(ledger, 31, None)) == ["a"]
    assert await look(ledger, 32, None) == {}


async def test_several_dispatchers_close_a_group_once(ledger: Ledger) -> None:
    """However many look at the same moment, one has the group, and has all of it."""
    await arrive(ledger, *((str(number), number) for number in range(20)))
    found = await asyncio.gather(*(look(ledger, 100) for _ in range(6)))
    assert [list(one) for one in found if one] == [["0"]]
    assert list((await status(ledger)).values()).count("joined") == 19


def test_the_run_gets_all_payloads_or_the_last() -> None:
    """As the rule says."""
    payloads = ['{"n": 1}', '"two"', "null"]
    assert combined(payloads, Coalesce()) == '[{"n": 1},"two",null]'
    assert combined(payloads, Coalesce(take="last")) == "null"


@pytest.mark.parametrize(
    ("key", "body", "group"),
    [
        (None, {"x": 1}, "*"),
        ("payload.repo.name", {"repo": {"name": "a"}}, '"a"'),
        ("payload.n", {"n": 3}, "3"),
        ("[payload.a, payload.b]", {"a": "x", "b": 2}, '["x", 2]'),
        ("headers['x-event']", {}, '"push"'),
        ("payload.repo", {}, None),
        ("payload.repo", "text", None),
        ("payload.repo", {"repo": None}, None),
        ("payload", {"b": 1, "a": [2]}, '{"a": [2], "b": 1}'),
    ],
)
def test_deliveries_belong_together_by_a_value_of_theirs(key: str | None, body: Any, group: str | None) -> None:
    """The same value, the same run; without one, a run of its own."""
    action = {"type": "python", "call": "a:b"}
    rule = WebhookRule.model_validate({"id": "r", "action": action, "coalesce": {"key": key} if key else {}})
    assert group_of(rule, BEGAN, body, {"x-event": "push"}) == group
    plain = WebhookRule.model_validate({"id": "r", "action": action})
    assert group_of(plain, BEGAN, body, {}) is None


async def test_a_group_is_found_by_its_first_delivery(ledger: Ledger) -> None:
    """Those that joined name the one that stands for them."""
    await arrive(ledger, ("a", 0), ("b", 1))
    await look(ledger, 40)
    async with ledger.read() as session:
        found = (await session.scalars(select(Delivery).order_by(col(Delivery.id)))).all()
    assert [one.joined_id for one in found] == [found[0].id] * 2
