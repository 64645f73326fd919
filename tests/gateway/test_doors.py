"""The doors while Prefect answers, but not well: who has the right secret is not turned away for that."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
import uvicorn
from fastapi import FastAPI, Request, Response
from prefect.settings import PREFECT_API_URL, temporary_settings

from proactive_prefect.errors import PrefectError
from proactive_prefect.gateway import doors
from proactive_prefect.gateway.doors import Doors
from proactive_prefect.prefect_api import connect
from proactive_prefect.settings import Settings
from tests.conftest import Server
from tests.gateway.conftest import apply, forget, keep_secret
from tests.support import free_port, wait_until


class Balancer:
    """Stands before Prefect, as a proxy does; answers with a status of its own where it is told to."""

    def __init__(self, api_url: str) -> None:
        self.port = free_port()
        self.secrets: int | None = None
        """The status of every read of a secret."""
        self.all: int | None = None
        self._upstream = api_url.removesuffix("/api")

    async def serve(self) -> AsyncIterator[None]:
        app = FastAPI()
        async with httpx.AsyncClient(base_url=self._upstream, timeout=60) as upstream:

            @app.api_route("/{path:path}", methods=["GET", "POST"])
            async def pass_on(path: str, request: Request) -> Response:
                if status := self.all or ("block_documents" in path and self.secrets):
                    return Response("<html>Bad Gateway</html>", status, media_type="text/html")
                kind = {"content-type": request.headers.get("content-type", "application/json")}
                query, body = dict(request.query_params), await request.body()
                answer = await upstream.request(request.method, path, params=query, content=body, headers=kind)
                return Response(answer.content, answer.status_code, media_type=answer.headers.get("content-type"))

            server = uvicorn.Server(uvicorn.Config(app, port=self.port, log_level="warning"))
            task = asyncio.create_task(server.serve())
            try:
                await wait_until(lambda: server.started, what="the balancer listens", every=0.01)
                yield
            finally:
                server.should_exit = True
                await task


@pytest.fixture
async def balancer(prefect_server: Server) -> AsyncIterator[Balancer]:
    """Before a Prefect that has one webhook, whose secret is in a block."""
    await keep_secret("doors-secret", "the-right-one")
    await apply("doors", {"id": "kept", "secret": "${secret:doors-secret}"})
    made = Balancer(prefect_server.api_url)
    async for _ in made.serve():
        yield made
    await forget("doors")


async def test_what_passes_closes_no_door(balancer: Balancer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A 5xx on the way to a secret keeps the one that was known, also where all is away after it; a 404 closes."""
    monkeypatch.setattr(doors, "SECRET_SECONDS", 0.0)
    settings = Settings(home=tmp_path, api_patience=1)
    with temporary_settings({PREFECT_API_URL: f"http://127.0.0.1:{balancer.port}/api"}):
        async with connect(settings) as api:
            known = Doors(api, settings)

            def kept() -> tuple[str | None, str | None]:
                door = known.get("kept")
                return (door.secret, door.closed) if door is not None else (None, "unknown")

            balancer.secrets = 502
            with pytest.raises(PrefectError):
                await known.refresh()
            assert not known.known  # so callers are asked to come again, and not told that their secret is wrong
            balancer.secrets = None
            await known.refresh()
            assert kept() == ("the-right-one", None)
            for status in (500, 502, 504):
                balancer.secrets = status
                await known.refresh()
                assert kept() == ("the-right-one", None)
            balancer.all = 502
            with pytest.raises(PrefectError):
                await known.refresh()
            assert kept() == ("the-right-one", None)
            balancer.all, balancer.secrets = None, 404
            await known.refresh()
            secret, closed = kept()
            assert secret is None
            assert "doors-secret" in (closed or "")
