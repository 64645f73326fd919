"""Prefect away, Prefect busy, the gateway stopped: callers are told, and nothing is lost silently."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from proactive_prefect.prefect_api import PrefectApi
from tests.conftest import Server, stop
from tests.gateway.conftest import TOKEN, Gateway, start_gateway
from tests.support import free_port, wait_until

OPERATOR = {"Authorization": f"Bearer {TOKEN}"}


async def test_the_gateway_lives_while_prefect_is_away(prefect_server: Server, tmp_path: Path) -> None:
    """Without Prefect it starts, is alive but not ready, and answers 503 to the operator and 401 to callers."""
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
        assert call.status_code == 401
        assert away not in ready.text + state.text
    finally:
        stop(gateway.process)


async def test_prefect_goes_away_and_comes_back(prefect_server: Server, gateway: Gateway, tmp_path: Path) -> None:
    """While Prefect is away a call waits, then gets 503; once it is back, the same delivery makes its one run."""
    upstream = prefect_server.api_url.removeprefix("http://127.0.0.1:").removesuffix("/api")
    relay = Relay(int(upstream))
    await relay.open()
    patient = start_gateway(
        prefect_server,
        tmp_path / "home",
        PREFECT_API_URL=f"http://127.0.0.1:{relay.port}/api",
        PROACTIVE_API_PATIENCE="2",
    )
    try:
        await wait_until(lambda: patient.is_ready(1), what="the gateway is ready")
        headers = {"X-Webhook-Secret": patient.secret("plain"), "Idempotency-Key": "over-an-outage"}
        async with httpx.AsyncClient(base_url=patient.url, timeout=90) as http:
            await relay.close()
            lost = await http.post("/hooks/plain", headers=headers, json={})
            assert lost.status_code == 503, lost.text
            assert int(lost.headers["retry-after"]) >= 1
            await relay.open()
            again = await http.post("/hooks/plain", headers=headers, json={})
            assert again.status_code in (200, 202)
            assert (await http.post("/hooks/plain", headers=headers, json={})).json() == again.json()
    finally:
        stop(patient.process)
        await relay.close()


@pytest.mark.slow
async def test_two_hundred_calls_at_once_are_two_hundred_runs(gateway: Gateway, api: PrefectApi) -> None:
    """On the embedded database a burst takes its time, but loses nothing and shows its callers no error."""
    headers = {"X-Webhook-Secret": gateway.secret("plain")}
    limits = httpx.Limits(max_connections=None)
    began = time.monotonic()
    async with httpx.AsyncClient(base_url=gateway.url, timeout=150, limits=limits) as http:
        calls = [http.post("/hooks/plain", headers=headers, json={"n": n}) for n in range(200)]
        answers = await asyncio.gather(*calls)
    took = time.monotonic() - began
    assert [answer.status_code for answer in answers] == [202] * 200
    runs = {answer.json()["flow_run_id"] for answer in answers}
    assert len(runs) == 200
    found = await api.post("/flow_runs/count", {"flow_runs": {"id": {"any_": sorted(runs)}}})
    assert found == 200
    print(f"200 calls at once: {took:.1f} s")


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
