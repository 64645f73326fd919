"""A Prefect that takes every call and says nothing: whoever looks is soon told, and what they repeat is done once."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import httpx
from prefect.settings import PREFECT_API_URL, temporary_settings

from proactive_prefect.prefect_api import connect
from tests.conftest import start_server, stop
from tests.gateway.conftest import TOKEN, apply, start_gateway
from tests.support import wait_until

STATE, RUN = "/api/v1/proactive/state", "/api/v1/proactive/rules/looks/run"


async def test_nobody_waits_for_a_server_that_says_nothing(tmp_path: Path) -> None:
    """All who look are answered 503 before Prefect's own minute is over; *run now* with the same key runs once."""
    (tmp_path / "prefect").mkdir()
    server, process = await asyncio.to_thread(start_server, tmp_path / "prefect")
    gateway = start_gateway(server, tmp_path / "home")
    operator = httpx.AsyncClient(
        base_url=gateway.url, headers={"Authorization": f"Bearer {TOKEN}"}, timeout=300, limits=httpx.Limits()
    )
    try:
        with temporary_settings({PREFECT_API_URL: server.api_url}):
            await apply("silence", {"id": "looks"})
            async with operator, connect() as api:
                await wait_until(lambda: gateway.is_ready(1), what="the gateway is ready", timeout=120)

                async def deployed() -> bool:
                    return bool((await operator.get("/api/v1/proactive/rules")).json()["rules"])

                await wait_until(deployed, what="the account knows the rule", timeout=120)
                os.killpg(process.pid, signal.SIGSTOP)
                try:
                    key = {"Idempotency-Key": "one-click"}
                    run = asyncio.create_task(operator.post(RUN, headers=key))
                    looks = [asyncio.create_task(operator.get(STATE)) for _ in range(12)]
                    # Far less than the minute that one try of Prefect's client takes, and than six times that.
                    done, late = await asyncio.wait([run, *looks], timeout=45)
                    assert not late, f"{len(late)} of {len(looks) + 1} still wait for Prefect"
                finally:
                    os.killpg(process.pid, signal.SIGCONT)
                for answer in [one.result() for one in done]:
                    assert (answer.status_code, answer.headers["content-type"]) == (503, "application/problem+json")
                    assert int(answer.headers["retry-after"]) >= 1

                async def state() -> bool:
                    return (await operator.get(STATE)).status_code == 200

                await wait_until(state, what="who looks is answered again", timeout=120)
                again = [await operator.post(RUN, headers=key) for _ in range(2)]
                assert [one.status_code for one in again] == [200, 200], again[0].text
                other = await operator.post(RUN)
                assert again[0].json()["run_id"] == again[1].json()["run_id"] != other.json()["run_id"]
                runs = await api.post("/flow_runs/filter", {"limit": 200})
                assert {run["id"] for run in runs} == {again[0].json()["run_id"], other.json()["run_id"]}
    finally:
        stop(gateway.process)
        stop(process)
