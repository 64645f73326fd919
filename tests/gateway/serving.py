"""Routes of the gateway served for real (uvicorn, HTTP) beside the test, where no Prefect is needed."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import uvicorn
from fastapi import APIRouter, FastAPI

from proactive_prefect.calendar.calendar import Calendar
from proactive_prefect.gateway import page
from proactive_prefect.gateway.problems import answer_with_problems
from proactive_prefect.gateway.push import Push
from proactive_prefect.gateway.samples import Samples
from proactive_prefect.ledger.db import Ledger
from proactive_prefect.prefect_api import PrefectApi
from proactive_prefect.settings import Settings
from proactive_prefect.webhooks.inbox import Inbox
from tests.support import free_port, wait_until

TOKEN, READ = "operator-3f1c8a72", "read-b9d64e05"


@dataclass
class Known:
    """As much of a gateway's `Service` as the routes under test ask for."""

    settings: Settings
    ledger: Ledger
    looking: PrefectApi | None = None
    samples: Samples = field(init=False)
    push: Push = field(init=False)
    calendar: Calendar = field(init=False)
    inbox: Inbox = field(init=False)

    def __post_init__(self) -> None:
        self.samples = Samples()
        self.push = Push(self.ledger, self.samples)
        self.calendar = Calendar(self.ledger, self.settings)
        self.inbox = Inbox(self.ledger)


@contextlib.asynccontextmanager
async def serving(known: Known, *routers: APIRouter, port: int = 0) -> AsyncIterator[str]:
    """Serve the routers and the page's files, and follow the log, until the block ends; gives the URL."""
    app = FastAPI()
    app.state.service = known
    answer_with_problems(app)
    for router in routers:
        app.include_router(router)
    app.mount("/page", page.files())
    port = port or free_port()
    config = uvicorn.Config(app, port=port, log_level="warning", timeout_graceful_shutdown=3, http="h11")
    server = uvicorn.Server(config)
    tasks = [asyncio.create_task(server.serve()), asyncio.create_task(known.push.watch())]
    try:
        await wait_until(lambda: server.started, what="the server listens", every=0.01)
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        await tasks[0]
        tasks[1].cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
