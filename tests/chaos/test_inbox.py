"""Gateway and server killed in the middle of a burst: every delivery that was accepted is one run."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from proactive_prefect.prefect_api import connect
from proactive_prefect.prefect_api.address import use_api_url
from tests.conftest import EMBEDDED, stop
from tests.gateway.conftest import Gateway, apply, start_gateway
from tests.support import free_port, wait_until

from ..conftest import start_server
from .postgres import OwnPostgres, own_postgres


class Life:
    """A Prefect server and a gateway that can be killed and started again, on the same files and ports."""

    def __init__(self, folder: Path, **env: str) -> None:
        self.folder, self.env = folder, env
        (folder / "prefect").mkdir()
        # No worker takes these runs. To mark all of them late is most of the server's work then, and not the subject.
        self.server, self.process = start_server(folder / "prefect", PREFECT_SERVER_SERVICES_LATE_RUNS_ENABLED="false")
        self.port = free_port()
        self.gateway: Gateway | None = None

    def start_gateway(self) -> Gateway:
        self.gateway = start_gateway(self.server, self.folder / "home", port=self.port, **self.env)
        return self.gateway

    def kill_gateway(self) -> None:
        assert self.gateway is not None
        os.killpg(self.gateway.process.pid, signal.SIGKILL)
        self.gateway.process.wait(30)

    def kill_server(self) -> None:
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(30)

    def restart_server(self) -> None:
        port = self.server.api_url.removesuffix("/api").rpartition(":")[2]
        with self.server.log.open("ab") as out:
            self.process = subprocess.Popen(
                [sys.executable, "-m", EMBEDDED, "server", "start", "--host", "127.0.0.1", "--port", port],
                env=self.server.env,
                stdout=out,
                stderr=out,
                start_new_session=True,
            )

    def end(self) -> None:
        if self.gateway is not None:
            stop(self.gateway.process)
        stop(self.process)


async def _send(url: str, secret: str, numbers: asyncio.Queue[int], answers: dict[int, int]) -> None:
    """Send deliveries as senders do: the same one again until it is answered with 2xx."""
    async with httpx.AsyncClient(timeout=20) as http:
        while not numbers.empty():
            number = numbers.get_nowait()
            headers = {"X-Webhook-Secret": secret, "Idempotency-Key": f"burst-{number}"}
            while True:
                try:
                    answer = await http.post(f"{url}/hooks/burst", json={"n": number}, headers=headers)
                except httpx.HTTPError:
                    await asyncio.sleep(0.2)
                    continue
                if answer.status_code in (200, 202):
                    answers[number] = answer.status_code
                    break
                assert answer.status_code == 503, answer.text  # it has just started, and not read its webhooks yet
                await asyncio.sleep(0.2)


async def _runs(keys: list[str]) -> Counter[str]:
    """How many runs Prefect has, by idempotency key."""
    found: Counter[str] = Counter()
    async with connect() as api:
        for first in range(0, len(keys), 200):
            some = {"idempotency_key": {"any_": keys[first : first + 200]}}
            page = await api.post("/flow_runs/filter", {"flow_runs": some, "limit": 200})
            found.update(run["idempotency_key"] for run in page)
    return found


@pytest.fixture
def life(tmp_path: Path) -> Iterator[Life]:
    """A server and a gateway of the test's own."""
    living = Life(tmp_path)
    try:
        yield living
    finally:
        living.end()


async def _burst(life: Life, count: int) -> None:
    with use_api_url(life.server.api_url):
        await apply("burst", {"id": "burst"}, {"id": "other", "when": "false"})
        gateway = life.start_gateway()
        await wait_until(lambda: gateway.is_ready(2), what="the gateway is ready", timeout=120)
        secret, began = gateway.secret("burst"), time.monotonic()
        numbers: asyncio.Queue[int] = asyncio.Queue()
        for number in range(count):
            numbers.put_nowait(number)
        answers: dict[int, int] = {}
        senders = [asyncio.create_task(_send(gateway.url, secret, numbers, answers)) for _ in range(16)]
        await wait_until(lambda: len(answers) > count // 4, what="a quarter is accepted", timeout=300, every=0.02)
        life.kill_gateway()
        await asyncio.to_thread(life.start_gateway)
        await wait_until(lambda: len(answers) > count // 2, what="half is accepted", timeout=300, every=0.02)
        life.kill_server()
        await wait_until(lambda: len(answers) > count * 3 // 4, what="more is accepted", timeout=300, every=0.02)
        life.restart_server()
        await asyncio.gather(*senders)
        accepted = time.monotonic() - began
        keys = [f"webhook burst burst-{number}" for number in range(count)]

        async def there(wanted: int) -> bool:
            try:
                async with connect() as api:
                    return await api.post("/flow_runs/count", {"deployments": {"name": {"any_": ["burst"]}}}) >= wanted
            except Exception:  # the server is coming up again
                return False

        await wait_until(lambda: there(count * 3 // 5), what="three fifths have their run", timeout=1800, every=1)
        life.kill_server()
        life.restart_server()
        await wait_until(lambda: there(count), what=f"{count} runs", timeout=1800, every=1)
        # Nothing is dispatched twice afterwards, when the leases of the killed one would have ended.
        life.kill_gateway()
        gateway = life.start_gateway()
        await wait_until(lambda: gateway.is_ready(2), what="the gateway is ready again", timeout=120)
        found = await _runs(keys)
        took = time.monotonic() - began
        assert sorted(found) == sorted(keys)
        assert set(found.values()) == {1}
        killed = "gateway and server killed twice each"
        print(f"\n{count} deliveries, {killed}: accepted in {accepted:.0f} s, all in {took:.0f} s")


@pytest.mark.slow
@pytest.mark.timeout(600)
async def test_a_burst_outlives_kills_of_gateway_and_server(life: Life) -> None:
    """Each delivery that was answered with 2xx is exactly one run, whatever was killed when."""
    await _burst(life, 200)


@pytest.mark.slow
@pytest.mark.timeout(7200)
async def test_ten_thousand_outlive_kills(life: Life) -> None:
    """The same with 10,000."""
    await _burst(life, 10_000)


@pytest.fixture
def database() -> Iterator[OwnPostgres]:
    """A database that can be killed."""
    with own_postgres() as running:
        yield running


@pytest.fixture
def over(tmp_path: Path, database: OwnPostgres) -> Iterator[Life]:
    """A server, and a gateway whose inbox is in the database."""
    living = Life(tmp_path, PROACTIVE_DATABASE_URL=database.url)
    try:
        yield living
    finally:
        living.end()


@pytest.mark.slow
@pytest.mark.timeout(600)
async def test_two_hundred_outlive_kills_of_the_database(over: Life, database: OwnPostgres) -> None:
    """The inbox in a PostgreSQL that is killed twice: who was answered with 2xx has exactly one run."""
    count = 200
    with use_api_url(over.server.api_url):
        await apply("burst", {"id": "burst"}, {"id": "other", "when": "false"})
        gateway = over.start_gateway()
        await wait_until(lambda: gateway.is_ready(2), what="the gateway is ready", timeout=120)
        numbers: asyncio.Queue[int] = asyncio.Queue()
        for number in range(count):
            numbers.put_nowait(number)
        answers: dict[int, int] = {}
        secret = gateway.secret("burst")
        senders = [asyncio.create_task(_send(gateway.url, secret, numbers, answers)) for _ in range(16)]
        for part in (4, 2):
            await wait_until(
                lambda part=part: len(answers) > count // part, what="a part is accepted", timeout=300, every=0.01
            )
            await asyncio.to_thread(database.kill)
            await asyncio.to_thread(database.start)
        await asyncio.gather(*senders)
        keys = [f"webhook burst burst-{number}" for number in range(count)]

        async def all_there() -> bool:
            return len(await _runs(keys)) == count

        await wait_until(all_there, what=f"{count} runs", timeout=300, every=1)
        found = await _runs(keys)
        assert set(found.values()) == {1}
        print(f"\n{count} deliveries, their database killed twice: each is one run")
