"""A call that is safe in the inbox is answered so, whatever fails afterwards."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import cast

from sqlalchemy import make_url

from proactive_prefect.gateway.delivery import Accepted, Call, deliver
from proactive_prefect.gateway.doors import Door
from proactive_prefect.gateway.service import Service
from proactive_prefect.ledger.db import open_ledger
from proactive_prefect.ledger.deliveries import Settled
from proactive_prefect.rules.models import WebhookRule
from proactive_prefect.settings import Settings
from tests.ledger.conftest import postgres_url
from tests.ledger.proxy import Proxy
from tests.support import wait_until

from .conftest import fresh
from .serving import Known

__all__ = ["postgres_url"]

RULE = WebhookRule.model_validate({"id": "hook", "action": {"type": "python", "call": "a:b"}, "wait": "60s"})


async def answered(home: Path, url: str, name: str, settled: Settled | None) -> Accepted:
    """The answer to a call whose ledger's database goes away as soon as the call is in it; then it is `settled`."""
    there = make_url(url)
    async with Proxy(f"http://{there.host}:{there.port}") as proxy:
        through = there.set(port=int(proxy.url.rpartition(":")[2])).render_as_string(hide_password=False)
        async with open_ledger(Settings(home=home, database_url=through)) as ledger:
            known = Known(Settings(home=home), ledger)
            door = Door(RULE, "0c0ffee0-0000-4000-8000-000000000000", False, (), None)
            answer = asyncio.create_task(deliver(cast(Service, known), door, Call(name, {}, b"{}", {}, "{}")))
            await wait_until(lambda: known.inbox.held, what="the call is in the inbox", every=0.01)
            await proxy.cut()
            (held,) = known.inbox.held_ids
            if settled is None:
                known.inbox.let_go([held])
            else:
                known.inbox.announce([Settled(held, settled.status, settled.run_id)])
            return await asyncio.wait_for(answer, 30)


async def test_a_call_is_accepted_whose_end_cannot_be_looked_at(tmp_path: Path, postgres_url: str) -> None:
    """An error would have its sender come again, and make a second run."""
    name = fresh("one")
    told = await answered(tmp_path, postgres_url, name, None)
    assert (told.status, told.delivery_id, told.run_id, told.repeated) == ("accepted", name, None, False)


async def test_a_call_is_accepted_whose_runs_end_cannot_be_looked_at(tmp_path: Path, postgres_url: str) -> None:
    """What is known by then is told."""
    told = await answered(tmp_path, postgres_url, fresh("two"), Settled("", "dispatched", "run-1"))
    assert (told.status, told.run_id, told.outcome) == ("accepted", "run-1", None)
