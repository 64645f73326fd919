"""What a gateway does beside answering goes on, whatever happens to it, and readiness tells where it does not."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from proactive_prefect.gateway import app, background
from proactive_prefect.gateway.background import at_work
from proactive_prefect.settings import Settings
from tests.gateway.test_metrics import serving
from tests.support import wait_until


async def test_a_work_that_fails_is_started_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that raises, or ends before it is told to, counts as failing until it has gone on for a while."""
    monkeypatch.setattr(background, "AGAIN_SECONDS", 0.05)
    monkeypatch.setattr(background, "STEADY_SECONDS", 0.5)
    starts: list[str] = []
    ended: list[str] = []
    failing: set[str] = set()
    stop = asyncio.Event()

    async def work(name: str, failures: int) -> None:
        starts.append(name)
        if starts.count(name) == 1 and failures:
            return
        if starts.count(name) <= failures:
            raise RuntimeError("on purpose")
        await stop.wait()
        ended.append(name)

    watches = {"looks": lambda: work("looks", 2), "well": lambda: work("well", 0)}
    async with at_work(stop, watches, {"writes": lambda: work("writes", 3)}, failing):
        await wait_until(lambda: failing == {"looks", "writes"}, what="both count as failing", every=0.01)
        await wait_until(lambda: not failing, what="both go on", every=0.01)
        assert {name: starts.count(name) for name in starts} == {"looks": 3, "writes": 4, "well": 1}
    assert "writes" in ended
    assert not failing


async def test_a_gateway_whose_work_fails_is_not_ready(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It says which; it is alive all the same."""

    async def fail(*_: object) -> None:
        raise RuntimeError("on purpose")

    monkeypatch.setattr(app, "keep_waking", fail)
    async with serving(Settings(home=tmp_path / "home", token="operator-token", api_patience=1)) as (_, client):

        async def told() -> str:
            answer = await client.get("/readyz")
            assert (answer.status_code, answer.headers["content-type"]) == (503, "application/problem+json")
            assert int(answer.headers["retry-after"]) >= 1
            return str(answer.json()["detail"])

        async def names_it() -> bool:
            return "fails: wakes;" in await told()

        await wait_until(names_it, what="readiness names the work")
        assert "on purpose" not in await told()
        assert (await client.get("/healthz")).status_code == 200
