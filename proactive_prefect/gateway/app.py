"""The gateway as an ASGI application."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

from fastapi import FastAPI

from ..calendar.calendar import Calendar
from ..calendar.confirm import keep_confirmed
from ..ledger.db import open_ledger
from ..ledger.feed import feed
from ..missed.sweep import sweep
from ..prefect_api import connect
from ..rules.durations import parse_duration
from ..settings import Settings
from ..wakes.wake import keep_waking
from ..webhooks.dispatch import Dispatcher
from ..webhooks.inbox import Inbox
from . import calendar, deliveries, health, heartbeat, hooks, metrics, missed, page, rules, state, stream, why
from .apidocs import add_docs
from .background import Work, at_work
from .doors import Doors
from .front import Front
from .problems import answer_with_problems
from .push import Projected, Push
from .samples import CountRequests, Samples
from .service import Service

# How long Prefect may say nothing at all before somebody who looks is told so.
LOOK_PATIENCE = 5.0


def create_app(settings: Settings) -> FastAPI:
    """The gateway. It starts and answers /healthz also while Prefect is away."""

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        # The dispatcher itself decides how often, and when, to try again.
        once = settings.model_copy(update={"api_patience": 0.0})
        look = settings.model_copy(update={"api_patience": min(settings.api_patience, LOOK_PATIENCE)})
        async with (
            open_ledger(settings) as ledger,
            connect(once) as dispatching,
            connect(look, within=LOOK_PATIENCE) as looking,
            connect(look) as watching,
            connect(settings) as feeding,
            connect(settings) as sweeping,
        ):
            doors, samples = Doors(watching, settings), Samples()
            push, inbox = Push(ledger, samples), Inbox(ledger)
            shown = Calendar(ledger, settings)
            push.projected = lambda: Projected(shown.projection.version, shown.projection.last_event_seq)
            samples.projection_state = shown.state
            service = Service(settings, looking, doors, ledger, push, shown, inbox, samples=samples)
            app.state.service = service
            stop, keep = asyncio.Event(), parse_duration(settings.delivery_retention)
            watches: dict[str, Work] = {"doors": doors.watch, "push": push.watch, "calendar": shown.watch}
            works: dict[str, Work] = {
                "feed": lambda: feed(feeding, ledger, stop, settings),
                "dispatch": lambda: Dispatcher(dispatching, inbox, doors, keep).work(stop),
                "wakes": lambda: keep_waking(watching, ledger, stop),
                "changes": lambda: keep_confirmed(watching, ledger, stop),
                "sweep": lambda: sweep(sweeping, ledger, stop, settings),
            }
            async with at_work(stop, watches, works, service.failing):
                yield

    app = FastAPI(
        title="proactive-prefect gateway",
        version="1",
        description="Webhooks in, and the state of the project out. Errors are RFC 9457 problem documents.",
        lifespan=lifespan,
        openapi_url=None,  # behind a token, below
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,  # a redirect would name the host that the caller made up
    )
    app.add_middleware(hooks.Doorway)
    app.add_middleware(Front, max_body=settings.max_body)
    answer_with_problems(app)
    app.add_middleware(CountRequests)
    app.include_router(hooks.router)
    app.include_router(state.router)
    app.include_router(why.router)
    app.include_router(deliveries.router)
    app.include_router(heartbeat.router)
    app.include_router(metrics.router)
    app.include_router(calendar.router)
    app.include_router(missed.router)
    app.include_router(health.router)
    app.include_router(rules.router)
    app.include_router(stream.router)
    app.include_router(page.router)
    app.mount("/page", page.files())
    add_docs(app)
    return app
