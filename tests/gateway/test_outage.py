"""Prefect away, Prefect busy, the gateway stopped: callers are told, and nothing is lost silently."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import httpx
import pytest

from proactive_prefect.prefect_api import PrefectApi
from tests.conftest import Server, stop
from tests.gateway.conftest import TOKEN, Gateway, start_gateway
from tests.support import free_port, wait_until

OPERATOR = {"Authorization": f"Bearer {TOKEN}"}


async def test_the_gateway_lives_while_prefect_is_away(prefect_server: Server, tmp_path: Path) -> None:
    """Without Prefect it starts, is alive and not ready, and answers 503: nobody is told that a secret is wrong."""
    away = f"http://127.0.0.1:{free_port()}/api"
    gateway = start_gateway(prefect_server, tmp_path / "home", PREFECT_API_URL=away, PROACTIVE_API_PATIENCE="1")
    try:
        await wait_until(gateway.is_alive, what="the gateway is alive")
        async with httpx.AsyncClient(base_url=gateway.url, timeout=90) as http:
            ready = await http.get("/readyz")
            state = await http.get("/api/v1/proactive/state", headers=OPERATOR)
            call = await http.post("/hooks/plain", headers={"X-Webhook-Secret": "x"})
        for answer in (ready, state):
            assert (answer.status_code, answer.headers["content-type"]) == (503, "application/problem+json")
            assert int(answer.headers["retry-after"]) >= 1
        assert call.status_code == 503
        assert away not in ready.text + state.text
    finally:
        stop(gateway.process)


async def test_prefect_goes_away_and_comes_back(
    prefect_server: Server, gateway: Gateway, tmp_path: Path, api: PrefectApi
) -> None:
    """While Prefect is away a call is accepted all the same; once it is back, the delivery gets its one run."""
    upstream = prefect_server.api_url.removeprefix("http://127.0.0.1:").removesuffix("/api")
    relay = Relay(int(upstream))
    await relay.open()
    patient = start_gateway(prefect_server, tmp_path / "home", PREFECT_API_URL=f"http://127.0.0.1:{relay.port}/api")
    try:
        await wait_until(lambda: patient.is_ready(1), what="the gateway is ready")
        headers = {"X-Webhook-Secret": patient.secret("plain"), "Idempotency-Key": "over-an-outage"}
        async with httpx.AsyncClient(base_url=patient.url, timeout=90) as http:
            await relay.close()
            began = time.monotonic()
            early = await http.post("/hooks/plain", headers=headers, json={})
            assert (early.status_code, early.json().keys()) == (202, {"status", "delivery_id"}), early.text
            assert time.monotonic() - began < 10
            assert await runs_of(api, ["over-an-outage"]) == {}
            await relay.open()
            await wait_until(lambda: runs_of(api, ["over-an-outage"]), what="the run of the delivery")
            again = await http.post("/hooks/plain", headers=headers, json={})
            assert again.status_code == 200
            assert again.json()["flow_run_id"] == (await runs_of(api, ["over-an-outage"]))["over-an-outage"]
    finally:
        stop(patient.process)
        await relay.close()


async def runs_of(api: PrefectApi, deliveries: Sequence[str]) -> dict[str, str]:
    """The run of each of these deliveries of the webhook `plain` that has one by now."""
    keys = {f"webhook plain {one}": one for one in deliveries}
    found: dict[str, str] = {}
    wanted = list(keys)
    for first in range(0, len(wanted), 200):
        some = {"idempotency_key": {"any_": wanted[first : first + 200]}}
        page = await api.post("/flow_runs/filter", {"flow_runs": some, "limit": 200})
        found |= {keys[run["idempotency_key"]]: run["id"] for run in page}
    return found


async def test_calls_at_once_are_answered_at_once_and_each_is_a_run(gateway: Gateway, api: PrefectApi) -> None:
    """The short form of the burst below."""
    await _burst(gateway, api, 40)


@pytest.mark.slow
async def test_two_hundred_calls_at_once_are_two_hundred_runs(gateway: Gateway, api: PrefectApi) -> None:
    """A burst is answered at once, loses nothing and shows its callers no error."""
    await _burst(gateway, api, 200)


async def _burst(gateway: Gateway, api: PrefectApi, count: int) -> None:
    headers = {"X-Webhook-Secret": gateway.secret("plain")}
    limits = httpx.Limits(max_connections=None)
    began = time.monotonic()
    async with httpx.AsyncClient(base_url=gateway.url, timeout=60, limits=limits) as http:
        calls = [http.post("/hooks/plain", headers=headers, json={"n": n}) for n in range(count)]
        answers = await asyncio.gather(*calls)
    took = time.monotonic() - began
    assert [answer.status_code for answer in answers] == [202] * count
    deliveries = [answer.json()["delivery_id"] for answer in answers]

    keys = [f"webhook plain {one}" for one in deliveries]

    async def all_have_runs() -> bool:  # a count: to be told of all of them would keep Prefect from making them
        counted = await api.post("/flow_runs/count", {"flow_runs": {"idempotency_key": {"any_": keys}}})
        return int(counted) == count

    await wait_until(all_have_runs, what=f"{count} runs", timeout=60 + count, every=1)
    found = await runs_of(api, deliveries)
    assert len(set(found.values())) == count
    told = {answer.json()["delivery_id"]: answer.json().get("flow_run_id") for answer in answers}
    assert all(run in (None, found[delivery]) for delivery, run in told.items())
    print(f"{count} calls at once: answered within {took:.1f} s, dispatched within {time.monotonic() - began:.1f} s")


async def test_stopping_finishes_what_was_begun(prefect_server: Server, gateway: Gateway, tmp_path: Path) -> None:
    """After SIGTERM a call that was being answered still gets its answer, and the process ends within 5 s."""
    ending = start_gateway(prefect_server, tmp_path / "home")
    await wait_until(lambda: ending.is_ready(1), what="the gateway is ready")
    headers = {"X-Webhook-Secret": ending.secret("plain")}
    begun = asyncio.Event()

    async def body() -> AsyncIterator[bytes]:
        yield b'{"n":'
        begun.set()
        yield b" 1}"

    async with httpx.AsyncClient(base_url=ending.url, timeout=60) as http:
        call = asyncio.create_task(http.post("/hooks/plain", headers=headers, content=body()))
        await begun.wait()
        os.kill(ending.process.pid, signal.SIGTERM)
        answer = await call
    assert answer.status_code in (202, 503)
    ended = time.monotonic()
    await wait_until(lambda: ending.process.poll() is not None, what="the gateway has ended", timeout=30)
    assert time.monotonic() - ended < 5


class Relay:
    """A port in front of the Prefect server that can be closed: to its users Prefect is away then."""

    def __init__(self, upstream: int) -> None:
        self.port = free_port()
        self._upstream = upstream
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.StreamWriter] = set()

    async def open(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)

    async def close(self) -> None:
        if self._server is not None:
            self._server.close()
        for writer in list(self._open):
            writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        to_reader, to_writer = await asyncio.open_connection("127.0.0.1", self._upstream)
        self._open |= {writer, to_writer}
        await asyncio.gather(_pipe(reader, to_writer), _pipe(to_reader, writer))


async def _pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    except OSError:
        pass
    finally:
        writer.close()
