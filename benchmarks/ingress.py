"""Webhooks: durable accepts and refusals a second beside an empty endpoint; the time from a call to its first line.

The rates are those of one gateway process, in turn with an empty FastAPI endpoint on the same server settings, from 64
connections. Prefect is stopped meanwhile (SIGSTOP): what is measured is the door and the commit, not the server behind
it, which takes what was accepted afterwards. The first lines are those of single calls, each on an idle machine, at any
moment of the process worker's ten seconds between two looks. Bursts under kills are in `tests/chaos/test_inbox.py`.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import statistics
import time
from collections.abc import AsyncIterator
from uuid import UUID

import httpx
from prefect.settings import PREFECT_API_URL, temporary_settings

from proactive_prefect.deploy.apply import apply_plan
from proactive_prefect.deploy.compile import Project, compile_rules
from proactive_prefect.deploy.plan import make_plan
from proactive_prefect.prefect_api import connect
from proactive_prefect.rules.models import Rulebook
from tests.support import free_port, wait_until

from .harness import OURS, PROCESS, ROOT, Bench, bench, databases, new_database, pool_of
from .load import Heard, load, request_bytes
from .report import report, summarise

EMPTY, REFUSED = "fastapi_empty", "ours_refused"
SECRET = "benchmark-secret"
CONNECTIONS = 64
BODY = b'{"event": "push", "repository": {"full_name": "a/b"}, "commits": [{"id": "1", "message": "hello"}]}'
SERVE = (
    "from proactive_prefect.gateway.serve import serve\n"
    "from proactive_prefect.settings import Settings\n"
    "serve(Settings())\n"
)


def main(quick: bool) -> None:
    """Measure on each database, and report."""
    for database in databases():
        asyncio.run(
            _measure(database, rounds=4 if quick else 12, seconds=1.5 if quick else 3.0, calls=2 if quick else 12)
        )


async def _measure(database: str, *, rounds: int, seconds: float, calls: int) -> None:
    async with bench(database) as running, _ledger(database) as env:
        with temporary_settings({PREFECT_API_URL: running.server.api_url}):
            await _apply(running)
        door = await _gateway(running, **env)
        await running.deploy(PROCESS)
        relay = await _relay(running)
        lines = await _first_lines(running, door, relay, calls)
        heard = await _rates(running, door, relay, rounds, seconds)
    sides = {name: _side(all_of) for name, all_of in heard.items()}
    for name, times in lines.items():
        sides[f"{name}_first_line"] = summarise(times)
    # Of each round by itself: what the machine does meanwhile falls on all sides of a round.
    ratios = {
        f"{name}/{EMPTY}": statistics.median(
            one.rate / empty.rate for one, empty in zip(heard[name], heard[EMPTY], strict=True)
        )
        for name in (OURS, REFUSED)
    }
    ratios[PROCESS] = statistics.median(lines[PROCESS]) / statistics.median(lines[OURS])
    report("ingress", database=database, runs=rounds, sides=sides, ratios=ratios)


def _side(heard: list[Heard]) -> dict[str, float]:
    every = [one for part in heard for one in part.seconds]
    return summarise(every, rate=statistics.median(part.rate for part in heard))


async def _rates(running: Bench, door: str, relay: str, rounds: int, seconds: float) -> dict[str, list[Heard]]:
    right = {"X-Webhook-Secret": SECRET, "Content-Type": "application/json"}
    wrong = {**right, "X-Webhook-Secret": "wrong"}
    asked = {
        EMPTY: (f"{relay}/hooks/empty", right, 202),
        OURS: (f"{door}/hooks/bench", right, 202),
        REFUSED: (f"{door}/hooks/bench", wrong, 401),
    }
    heard: dict[str, list[Heard]] = {name: [] for name in asked}
    os.killpg(running.server_process.pid, signal.SIGSTOP)
    try:
        for number in range(rounds + 1):  # the first one warms up
            for name, (url, headers, status) in asked.items():
                one = await load(url, request_bytes(url, headers, BODY), connections=CONNECTIONS, seconds=seconds)
                assert set(one.statuses) == {status}, f"{name}: {one.statuses}"
                if number:
                    heard[name].append(one)
    finally:
        os.killpg(running.server_process.pid, signal.SIGCONT)
    return heard


async def _first_lines(running: Bench, door: str, relay: str, calls: int) -> dict[str, list[float]]:
    """Seconds from the call to the first line of its flow, on an idle machine, in turn."""
    for side, kind in ((OURS, "proactive"), (PROCESS, "process")):
        running.start(
            f"{side}-worker",
            ["-m", "prefect", "worker", "start", "--type", kind, "--pool", pool_of(side)],
            BENCH_LINES=str(running.lines),
        )
        log = running.folder / f"{side}-worker.log"
        await wait_until(lambda log=log: "started!" in log.read_text(), what=f"worker of {side}", timeout=180)
    lines: dict[str, list[float]] = {OURS: [], PROCESS: []}
    urls = {OURS: f"{door}/hooks/landing", PROCESS: f"{relay}/hooks/relay"}
    moments = random.Random(0)
    async with httpx.AsyncClient(timeout=60) as http:
        for number in range(-1, calls):
            for side, url in urls.items():
                await asyncio.sleep(moments.uniform(1, 11))
                key, began = f"{side}{number}", time.time()
                answer = await http.post(url, json={"key": key}, headers={"X-Webhook-Secret": SECRET})
                assert answer.status_code == 202, answer.text
                await wait_until(lambda key=key: key in running.seen(), what=f"line {key}", timeout=240, every=0.02)
                await running.ended(UUID(answer.json()["flow_run_id"]))
                if number >= 0:
                    lines[side].append(running.seen()[key] - began)
    for side in lines:
        os.killpg(running.processes.pop(f"{side}-worker").pid, signal.SIGKILL)
    return lines


async def _apply(running: Bench) -> None:
    action = {"type": "python", "call": "benchmarks.landing:land"}
    usual = {"kind": "webhook", "on_overlap": "allow", "secret": "${env:BENCH_SECRET}", "action": action}
    rules = [{**usual, "id": "bench", "work_pool": "nobody"}, {**usual, "id": "landing"}]
    made = Project("bench", ROOT, pool_of(OURS))
    book = Rulebook.model_validate({"proactive": {"enabled": True}, "rules": rules})
    async with connect() as api:
        await apply_plan(api, await make_plan(api, compile_rules(book, made), made))


async def _gateway(running: Bench, **env: str) -> str:
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    env |= {"PROACTIVE_HOME": str(running.folder / "gateway"), "PROACTIVE_GATEWAY_PORT": str(port)}
    env |= {"PROACTIVE_REFUSALS": "", "BENCH_SECRET": SECRET, "PROACTIVE_TOKEN": f"{SECRET}-operator"}
    running.start("gateway", ["-c", SERVE], **env)

    async def knows() -> bool:
        with contextlib.suppress(httpx.HTTPError, KeyError):
            async with httpx.AsyncClient() as http:
                return bool((await http.get(f"{url}/readyz")).json()["webhooks"] >= 2)
        return False

    await wait_until(knows, what="the gateway", timeout=180)
    return url


async def _relay(running: Bench) -> str:
    port = free_port()
    (deployment,) = running.deployments[PROCESS]
    running.start("relay", ["-m", "benchmarks.relay", str(port), str(deployment), str(running.lines)])
    url = f"http://127.0.0.1:{port}"

    async def answers() -> bool:
        with contextlib.suppress(httpx.HTTPError):
            async with httpx.AsyncClient() as http:
                return (await http.post(f"{url}/hooks/empty")).status_code == 202
        return False

    await wait_until(answers, what="the relay", timeout=180)
    return url


@contextlib.asynccontextmanager
async def _ledger(database: str) -> AsyncIterator[dict[str, str]]:
    """The gateway's setting for a ledger of its own, of the same kind as Prefect's database."""
    if database == "sqlite":
        yield {}
        return
    async with new_database() as url:
        yield {"PROACTIVE_DATABASE_URL": url}
