"""A dispatcher at work, and what a test sees of the inbox meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from sqlalchemy import event, select
from sqlmodel import col

from proactive_prefect.ledger.db import Ledger
from proactive_prefect.ledger.tables import Delivery
from proactive_prefect.prefect_api import connect
from proactive_prefect.prefect_api.address import use_api_url
from proactive_prefect.rules.models import WebhookRule
from proactive_prefect.settings import Settings
from proactive_prefect.webhooks.dispatch import Dispatcher
from proactive_prefect.webhooks.inbox import Inbox
from tests.support import free_port, wait_until

ACTION = {"type": "python", "call": "a:b"}


def a_rule(**keys: Any) -> WebhookRule:
    """The webhook `hook`, unless it says otherwise."""
    return WebhookRule.model_validate({"id": "hook", "action": ACTION, "on_overlap": "allow", **keys})


@dataclass(frozen=True)
class Deployed:
    """A webhook that runs whatever comes."""

    rule: WebhookRule
    deployment_id: str = "0c0ffee0-0000-4000-8000-000000000000"
    paused: bool = False


class Known:
    """The webhooks that are deployed: one, or none."""

    def __init__(self, *known: Deployed, ready: bool = True) -> None:
        self.ready = ready
        self._known = {one.rule.id: one for one in known}

    def get(self, rule_id: str) -> Deployed | None:
        return self._known.get(rule_id)


@contextlib.asynccontextmanager
async def dispatching(
    inbox: Inbox, known: Known, *given: timedelta, url: str | None = None, **more: timedelta
) -> AsyncIterator[Dispatcher]:
    """A dispatcher at work, in front of the Prefect at `url`; without one it does not answer."""
    stop = asyncio.Event()
    with use_api_url(url or f"http://127.0.0.1:{free_port()}/api"):
        async with connect(Settings().model_copy(update={"api_patience": 0.0})) as api:
            dispatcher = Dispatcher(api, inbox, known, *(given or [timedelta(days=1)]), **more)
            work = asyncio.create_task(dispatcher.work(stop))
            try:
                yield dispatcher
                assert not work.done()
            finally:
                stop.set()
                await asyncio.wait_for(work, 30)


async def rows(ledger: Ledger) -> dict[str, Delivery]:
    """Every delivery, by its sender's id."""
    async with ledger.read() as session:
        found = (await session.scalars(select(Delivery).order_by(col(Delivery.id)))).all()
    return {one.delivery_id: one for one in found}


async def once(ledger: Ledger, that: Callable[[dict[str, Delivery]], object], what: str) -> dict[str, Delivery]:
    """The deliveries, once `that` is so."""

    async def look() -> dict[str, Delivery] | None:
        found = await rows(ledger)
        return found if that(found) else None

    found = await wait_until(look, what=what)
    assert found is not None
    return found


@dataclass(frozen=True)
class Query:
    """A query that was made, and the names of what it read."""

    statement: str
    parameters: Any
    columns: tuple[str, ...]


@contextlib.contextmanager
def queries(engine: Any) -> Iterator[list[Query]]:
    """The queries on the deliveries that are made through the engine meanwhile."""
    made: list[Query] = []

    def after(_connection: Any, cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        if statement.lstrip().startswith(("SELECT", "WITH")) and "deliveries" in statement:
            made.append(Query(statement, parameters, tuple(one[0] for one in cursor.description)))

    event.listen(engine.sync_engine, "after_cursor_execute", after)
    try:
        yield made
    finally:
        event.remove(engine.sync_engine, "after_cursor_execute", after)
