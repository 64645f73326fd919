"""Many deliveries, one run: which belong together, and when they have waited long enough."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import select
from sqlmodel import col

from proactive_prefect.ledger.db import Ledger
from proactive_prefect.ledger.deliveries import CLAIMED_CHARACTERS, MOST_JOINED, claim, insert_new, lock_groups
from proactive_prefect.ledger.tables import Delivery
from proactive_prefect.rules.coalesce import Coalesce
from proactive_prefect.rules.models import WebhookRule
from proactive_prefect.webhooks.coalesce import close_groups, group_of
from proactive_prefect.webhooks.inbox import LEASE, Inbox

from .calls import a_call
from .dispatching import Deployed, Known, a_rule

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
    now, known = at(seconds), Known(Deployed(a_rule(coalesce=coalesce)))
    async with ledger.write() as session:
        await lock_groups(session)
        claimed = await claim(session, "holder", now, now + LEASE, 100)
        taken = await close_groups(session, claimed, known, now)
    return {one.delivery_id: payload for one, payload in taken}


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
    """What still waits together is a run each, also if the rule coalesces again before that is there."""
    await arrive(ledger, ("a", 0), ("b", 20))
    assert await look(ledger, 31) == {}
    assert await look(ledger, 50, None) == {"a": '{"n": "a"}', "b": '{"n": "b"}'}
    assert await look(ledger, 51 + LEASE.total_seconds()) == {"a": '{"n": "a"}', "b": '{"n": "b"}'}


async def test_a_group_is_of_so_many_at_most(ledger: Ledger) -> None:
    """One that is full does not wait; what it has no room for begins the next one."""
    calls = [
        a_call(f"{number}", received_at=at(number / 1000), group_key="g", due_at=at(30), id=f"{number:06d}")
        for number in range(MOST_JOINED + 10)
    ]
    async with ledger.write() as session:
        await insert_new(session, calls, {})
    (payload,) = (await look(ledger, 30)).values()
    assert payload.count('"n"') == MOST_JOINED
    assert await look(ledger, 30.5) == {}
    (payload,) = (await look(ledger, 32)).values()
    assert payload.count('"n"') == 10


async def test_what_large_groups_hold_is_never_in_memory_at_once(ledger: Ledger) -> None:
    """A claim takes as many groups as fit, and leaves the others to whoever comes next."""
    large = '"' + "x" * (4_000_000) + '"'
    calls = [
        a_call(f"{group}{number}", group_key=group, received_at=at(0), due_at=at(30 + number), payload=large)
        for group in "abcdef"
        for number in range(2)
    ]
    async with ledger.write() as session:
        await insert_new(session, calls, {})
    first = await look(ledger, 30)
    assert sum(len(payload) for payload in first.values()) <= CLAIMED_CHARACTERS
    second = await look(ledger, 30)
    assert (len(first), len(first | second)) == (4, 6)


async def test_several_dispatchers_close_a_group_once(ledger: Ledger) -> None:
    """However many look at the same moment, one has the group, and has all of it."""
    await arrive(ledger, *((str(number), number) for number in range(20)))
    found = await asyncio.gather(*(look(ledger, 100) for _ in range(6)))
    assert [list(one) for one in found if one] == [["0"]]
    assert list((await status(ledger)).values()).count("joined") == 19


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


def test_long_keys_that_begin_alike_are_other_runs() -> None:
    """A key is compared as a whole, however long it is; what is kept of it is short."""
    rule = a_rule(coalesce={"key": "payload"})
    groups = [group_of(rule, BEGAN, "x" * 5000 + end, {}) for end in ("a", "b", "a")]
    assert groups[0] == groups[2] != groups[1]
    assert all(group is not None and len(group) < 100 for group in groups)


async def test_a_group_is_found_by_its_first_delivery(ledger: Ledger) -> None:
    """Those that joined name the one that stands for them."""
    await arrive(ledger, ("a", 0), ("b", 1))
    await look(ledger, 40)
    async with ledger.read() as session:
        found = (await session.scalars(select(Delivery).order_by(col(Delivery.id)))).all()
    assert [one.joined_id for one in found] == [found[0].id] * 2
