"""Groups of deliveries on their way to Prefect: none of them is lost, whatever becomes of their rule meanwhile."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from alembic import command

from proactive_prefect.errors import InputError
from proactive_prefect.ledger.db import Ledger, open_ledger
from proactive_prefect.ledger.deliveries import Settled, settle
from proactive_prefect.ledger.migrate import alembic_config
from proactive_prefect.prefect_api import connect
from proactive_prefect.prefect_api.deployments import deployed_rules
from proactive_prefect.settings import Settings
from proactive_prefect.webhooks.desk import replay, take_all_away, take_away
from proactive_prefect.webhooks.inbox import Inbox
from tests.conftest import Server
from tests.gateway.conftest import apply, forget

from .calls import anybodys
from .dispatching import Deployed, Known, a_rule, dispatching, once, rows

TOGETHER: dict[str, Any] = {"window": "100ms", "max_wait": "100ms"}
PATIENT: dict[str, Any] = {"window": "1h", "max_wait": "1h"}


@pytest.fixture
async def deployment(prefect_server: Server) -> AsyncIterator[str]:
    """The deployment of the webhook `hook` in a real Prefect."""
    await apply("groups", {"id": "hook"})
    async with connect() as api:
        (found,) = await deployed_rules(api, project="groups")
    yield found.deployment_id
    await forget("groups")


async def arrive(ledger: Ledger, *names: str, **more: Any) -> None:
    """Deliveries of one group, which came an hour ago."""
    inbox = Inbox(ledger)
    for number, name in enumerate(names):
        received = datetime.now(UTC) - timedelta(hours=1) + timedelta(seconds=number)
        await inbox.accept(anybodys(name, group_key="g", **{"received_at": received, **more}))


async def close(ledger: Ledger, *, take: str = "all") -> None:
    """Let a dispatcher whose Prefect does not answer close the group."""
    rule = a_rule(coalesce={**TOGETHER, "take": take})
    async with dispatching(Inbox(ledger), Known(Deployed(rule))):
        await once(ledger, lambda found: found["c"].status == "joined", "the group is closed")


async def payload_of(run_id: str | None) -> Any:
    """What the run was given."""
    async with connect() as api:
        return json.loads((await api.get(f"/flow_runs/{run_id}"))["parameters"]["payload"])


@pytest.mark.parametrize(
    ("take", "payload"), [("all", [{"n": "a"}, {"n": "b"}, {"n": "c"}]), ("last", {"n": "c"})], ids=["all", "last"]
)
async def test_a_closed_group_is_run_as_it_was_closed(
    take: str, payload: Any, ledger: Ledger, deployment: str, prefect_server: Server
) -> None:
    """Also where its rule does not coalesce any more once Prefect is back; a replay of it gets the same."""
    await arrive(ledger, "a", "b", "c")
    await close(ledger, take=take)
    async with dispatching(Inbox(ledger), Known(Deployed(a_rule(), deployment)), url=prefect_server.api_url):
        found = await once(ledger, lambda found: found["a"].status != "waiting", "the group has its run")
        assert await payload_of(found["a"].run_id) == payload
        made = await replay(ledger, "a")
        again = (await once(ledger, lambda found: found[made.delivery_id].run_id, "the replay has its run"))[
            made.delivery_id
        ]
        assert again.run_id != found["a"].run_id
        assert await payload_of(again.run_id) == payload
    assert [one.status for one in (await rows(ledger)).values()] == ["dispatched", "joined", "joined", "dispatched"]


async def test_no_group_is_closed_while_its_webhook_is_not_known(
    ledger: Ledger, deployment: str, prefect_server: Server
) -> None:
    """A gateway that has just started knows none; as soon as it does, the run gets all that came."""
    await arrive(ledger, "a", "b", "c")
    async with dispatching(Inbox(ledger), Known(ready=False)):
        found = await once(ledger, lambda found: all(one.attempts for one in found.values()), "each was looked at")
        assert {(one.status, one.joined_id) for one in found.values()} == {("waiting", None)}
    known = Known(Deployed(a_rule(coalesce=TOGETHER), deployment))
    async with dispatching(Inbox(ledger), known, url=prefect_server.api_url):
        found = await once(ledger, lambda found: found["a"].status != "waiting", "the group has its run")
    assert await payload_of(found["a"].run_id) == [{"n": "a"}, {"n": "b"}, {"n": "c"}]


async def test_a_rule_that_coalesces_no_more_runs_each(ledger: Ledger, deployment: str, prefect_server: Server) -> None:
    """What still waited together is a run each, with what it brought."""
    await arrive(ledger, "a", "b")
    async with dispatching(Inbox(ledger), Known(Deployed(a_rule(), deployment)), url=prefect_server.api_url):
        found = await once(
            ledger, lambda found: all(one.status != "waiting" for one in found.values()), "each is settled"
        )
    assert [await payload_of(one.run_id) for one in found.values()] == [{"n": "a"}, {"n": "b"}]


async def test_what_a_waiting_group_holds_is_not_erased(ledger: Ledger) -> None:
    """Those that joined are part of what waits: neither one by one nor all of a webhook's are taken away."""
    await arrive(ledger, "a", "b", "c")
    await close(ledger)
    assert (await take_all_away(ledger, "hook", None)).erased == 0
    assert (await take_all_away(ledger, None, datetime.now(UTC))).erased == 0
    for name in ("a", "b"):
        with pytest.raises(InputError, match="still waits"):
            await take_away(ledger, name)
    assert {one.payload for one in (await rows(ledger)).values()} == {'{"n": "a"}', '{"n": "b"}', '{"n": "c"}'}


async def test_what_a_waiting_group_holds_is_not_forgotten(ledger: Ledger) -> None:
    """However short the retention: they are kept until their run is there."""
    await arrive(ledger, "a", "b", "c")
    await close(ledger)
    long_ago = datetime.now(UTC) - timedelta(hours=1)
    settled = await Inbox(ledger).accept(anybodys("z", received_at=long_ago))
    async with ledger.write() as session:
        await settle(session, [Settled(settled.id, "dispatched", "run")], long_ago)
    async with dispatching(Inbox(ledger), Known(ready=False), timedelta(0)):
        await once(ledger, lambda found: "z" not in found, "what was settled is forgotten")
    assert list(await rows(ledger)) == ["a", "b", "c"]


async def test_a_group_is_closed_when_it_is_full(ledger: Ledger) -> None:
    """At so many characters, long before its time: what is one run's payload has to fit into memory."""
    large = '"' + "x" * (3 * 1024 * 1024) + '"'
    await arrive(ledger, "a", "b", "c", received_at=datetime.now(UTC), payload=large)
    async with dispatching(Inbox(ledger), Known(Deployed(a_rule(coalesce=PATIENT)))):
        found = await once(
            ledger, lambda found: found["c"].due_at > datetime.now(UTC) + timedelta(minutes=30), "the rest waits on"
        )
    assert [one.status for one in found.values()] == ["waiting", "joined", "waiting"]
    assert found["a"].joined_id == found["b"].joined_id == found["a"].id
    assert found["c"].joined_id is None


async def test_a_group_that_an_earlier_version_closed_is_run_whole(
    ledger: Ledger, ledger_settings: Settings, deployment: str, prefect_server: Server
) -> None:
    """Its tables did not say what the run gets: it gets all."""
    await arrive(ledger, "a", "b", "c")
    await close(ledger)
    async with ledger._writers.begin() as connection:
        await connection.run_sync(lambda plain: command.downgrade(alembic_config(plain), "0010"))
    async with open_ledger(ledger_settings) as again:
        known = Known(Deployed(a_rule(), deployment))
        async with dispatching(Inbox(again), known, url=prefect_server.api_url):
            found = await once(again, lambda found: found["a"].status != "waiting", "the group has its run")
    assert await payload_of(found["a"].run_id) == [{"n": "a"}, {"n": "b"}, {"n": "c"}]
