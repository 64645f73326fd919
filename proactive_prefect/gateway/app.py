"""The gateway as an ASGI application."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

from fastapi import Depends, FastAPI
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.responses import HTMLResponse, JSONResponse

from ..calendar.calendar import Calendar
from ..heartbeat.wake import keep_waking
from ..ledger.db import open_ledger
from ..ledger.feed import feed
from ..missed.sweep import sweep
from ..prefect_api import connect
from ..rules.durations import parse_duration
from ..settings import Settings
from ..webhooks.dispatch import Dispatcher
from ..webhooks.inbox import Inbox
from . import calendar, deliveries, health, heartbeat, hooks, metrics, missed, page, rules, state, stream, why
from .access import reader
from .background import at_work
from .doors import Doors
from .front import Front
from .problems import Problem, answer_with_problems
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
            connect(look) as looking,
            connect(settings) as feeding,
            connect(settings) as sweeping,
        ):
            doors, samples = Doors(looking, settings), Samples()
            push, inbox = Push(ledger, samples), Inbox(ledger)
            shown = Calendar(ledger, settings)
            push.projected = lambda: Projected(shown.projection.version, shown.projection.last_event_seq)
            samples.projection_state = shown.state
            app.state.service = Service(settings, looking, doors, ledger, push, shown, inbox, samples=samples)
            stop, keep = asyncio.Event(), parse_duration(settings.delivery_retention)
            watches = {"doors": doors.watch(), "push": push.watch(), "calendar": shown.watch()}
            works = {
                "feed": feed(feeding, ledger, stop, settings),
                "dispatch": Dispatcher(dispatching, inbox, doors, keep).work(stop),
                "wakes": keep_waking(looking, ledger, stop),
                "sweep": sweep(sweeping, ledger, stop, settings),
            }
            async with at_work(stop, watches, works):
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

    @app.get("/openapi.json", include_in_schema=False, dependencies=[Depends(reader)])
    async def openapi() -> JSONResponse:
        return JSONResponse(_schema(app))

    @app.get("/docs", include_in_schema=False, dependencies=[Depends(reader)])
    async def docs() -> HTMLResponse:
        return get_swagger_ui_html(openapi_url="/openapi.json", title=app.title)

    return app


def _schema(app: FastAPI) -> dict[str, Any]:
    """FastAPI's own document, but with problems for the errors that FastAPI describes as its own."""
    schema = app.openapi()
    components = schema.setdefault("components", {}).setdefault("schemas", {})
    components["Problem"] = Problem.model_json_schema()
    components.pop("HTTPValidationError", None)
    components.pop("ValidationError", None)
    invalid = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
    for path in schema["paths"].values():
        for operation in path.values():
            if "422" in operation["responses"]:
                operation["responses"]["422"] = {"description": "Unprocessable Content", "content": invalid}
    return schema
