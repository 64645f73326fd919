"""Two hundred readers of the event stream at once: how soon each hears of an event, and how soon the page is answered.

Beside it stand one reader alone, and the page without any. The gateway's routes are served by a process of their own,
over a SQLite ledger of 100 rules; an event is written each 100 ms. The readers, and the page, are in another process on
the same machine, and so share its processors with what they measure.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import tempfile
import time
from datetime import UTC, datetime, timedelta
from multiprocessing.connection import Connection
from pathlib import Path

import httpx

from benchmarks.report import report, summarise
from proactive_prefect.gateway import calendar, missed, page, stream
from proactive_prefect.ledger.db import open_ledger
from proactive_prefect.ledger.log import append
from proactive_prefect.settings import Settings
from tests.calendar.rulesets import note, seen
from tests.gateway.serving import TOKEN, Known, serving
from tests.ledger.histories import an_event

READERS = 200
_EVERY = 0.1  # seconds between two events
_RULES = 100
_HEADERS = {"Authorization": f"Bearer {TOKEN}"}


def main(*, quick: bool) -> None:
    """Measure and report."""
    events = 30 if quick else 200
    sides: dict[str, dict[str, float]] = {}
    for name, readers in (("floor", 1), ("ours", READERS)):
        heard, asked = asyncio.run(_side(readers, events))
        sides[name] = summarise(heard, readers=readers)
        sides[f"page_{readers}"] = summarise(asked, readers=readers)
    ratios = {"floor": sides["floor"]["p50"] / sides["ours"]["p50"]}
    report("stream", runs=events, sides=sides, ratios=ratios)


async def _side(readers: int, events: int) -> tuple[list[float], list[float]]:
    """How long after it was written each reader heard of each event; and how long each question of the page took."""
    here, there = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=_gateway, args=(there, events), daemon=True)
    process.start()
    url = await asyncio.to_thread(here.recv)
    limits = httpx.Limits(max_connections=None)
    try:
        async with httpx.AsyncClient(base_url=url, headers=_HEADERS, timeout=120, limits=limits) as http:
            following = asyncio.Semaphore(0)
            tasks = [asyncio.create_task(_hear(http, events, following)) for _ in range(readers)]
            for _ in range(readers):
                await following.acquire()
            here.send("go")
            stop = asyncio.Event()
            asking = asyncio.create_task(_ask(http, stop))
            heard = [one for each in await asyncio.gather(*tasks) for one in each]
            stop.set()
            return heard, await asking
    finally:
        here.send("stop")
        await asyncio.to_thread(process.join, 30)


async def _hear(http: httpx.AsyncClient, events: int, following: asyncio.Semaphore) -> list[float]:
    heard: list[float] = []
    async with http.stream("GET", "/api/v1/ops/scheduling/stream") as answer:
        async for line in answer.aiter_lines():
            if line.startswith("event: keepalive") and not heard:
                following.release()
            found = line.partition('"written":')[2]
            if found:
                heard.append(time.time() - float(found.partition("}")[0].partition(",")[0]))
                if len(heard) == events:
                    return heard
    raise AssertionError(f"the stream ended after {len(heard)} events")


async def _ask(http: httpx.AsyncClient, stop: asyncio.Event) -> list[float]:
    """What the page asks for after an event, one after another."""
    took: list[float] = []
    now = datetime.now(UTC)
    day = {"start": (now - timedelta(days=3)).isoformat(), "end": (now + timedelta(days=4)).isoformat()}
    while not stop.is_set():
        for path, params in (("/api/v1/proactive/missed", {}), ("/api/v1/ops/calendar/events", day)):
            began = time.perf_counter()
            answer = await http.get(path, params=params)
            answer.raise_for_status()
            took.append(time.perf_counter() - began)
        await asyncio.sleep(1)  # so often, at most, does it ask
    return took


def _gateway(pipe: Connection, events: int) -> None:
    asyncio.run(_serve(pipe, events))


async def _serve(pipe: Connection, events: int) -> None:
    with tempfile.TemporaryDirectory() as home:
        settings = Settings(home=Path(home), token=TOKEN)
        async with open_ledger(settings) as ledger:
            rules = [{"kind": "cron", "id": f"rule-{n}", "cron": f"{n % 60} * * * *"} for n in range(_RULES)]
            await note(ledger, *(seen(rule) for rule in rules))
            known = Known(settings, ledger)
            async with serving(known, page.router, stream.router, calendar.router, missed.router) as url:
                pipe.send(url)
                await asyncio.to_thread(pipe.recv)
                for number in range(events):
                    event = an_event(f"event-{number}", at=datetime.now(UTC), rule_id=f"rule-{number % _RULES}")
                    event.payload["written"] = time.time()
                    async with ledger.write() as session:
                        await append(session, [event])
                    await asyncio.sleep(_EVERY)
                await asyncio.to_thread(pipe.recv)
