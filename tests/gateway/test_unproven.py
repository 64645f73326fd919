"""Calls that prove nothing cost no more than is allowed, however many come at once. Prefect is away here."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from proactive_prefect.gateway import doors
from proactive_prefect.gateway.service import Service
from proactive_prefect.settings import Settings
from tests.gateway.test_metrics import serving
from tests.support import wait_until

MOST = 5


def known(app: FastAPI) -> Service:
    """Its gateway, as if Prefect had told it that there are no webhooks."""
    service: Service = app.state.service
    service.doors._fresh_at = time.monotonic()
    return service


async def test_a_body_counts_as_held_until_it_is_verified(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A large one, which is verified beside the event loop, is not forgotten while it waits there."""
    verdict, go_on, begun = doors._verdict, threading.Event(), threading.Event()

    def slowly(*args: Any) -> doors.Passage:
        begun.set()
        assert go_on.wait(60)
        return verdict(*args)

    monkeypatch.setattr(doors, "_verdict", slowly)
    body = b"x" * (2 * doors.AT_ONCE)
    async with serving(Settings(home=tmp_path / "home", token="operator-token", api_patience=1)) as (app, client):
        service = known(app)
        call = asyncio.create_task(client.post("/hooks/nobody", content=body))
        try:
            await wait_until(begun.is_set, what="the body is being verified", every=0.01)
            held = service.unproven, sum(service.unproven_of.values())
        finally:
            go_on.set()
        assert (await call).status_code == 401
        assert held == (len(body), len(body))
        assert (service.unproven, service.unproven_of) == (0, Counter())


async def test_no_more_are_refused_than_allowed_though_they_come_at_once(tmp_path: Path) -> None:
    """Those that were under way when the others were refused are told to come later, and are not verified."""
    arrived, go_on = 0, asyncio.Event()

    async def body() -> AsyncIterator[bytes]:
        nonlocal arrived
        arrived += 1
        yield b"{"
        await go_on.wait()
        yield b"}"

    settings = Settings(home=tmp_path / "home", token="operator-token", api_patience=1, refusals=f"{MOST}/hour")
    async with serving(settings) as (app, client):
        service = known(app)
        calls = [asyncio.create_task(client.post("/hooks/nobody", content=body())) for _ in range(8 * MOST)]
        await wait_until(lambda: service.unproven == len(calls), what="all have begun", every=0.01)
        go_on.set()
        answers: list[httpx.Response] = await asyncio.gather(*calls)
        assert Counter(one.status_code for one in answers) == {401: MOST, 429: 7 * MOST}
        assert all(int(one.headers["retry-after"]) >= 1 for one in answers if one.status_code == 429)
        assert service.refused == MOST
