"""What is shown of Prefect's address is without the credentials that may be in it."""

from __future__ import annotations

import asyncio
import base64

from prefect.settings import PREFECT_API_URL, PREFECT_UI_URL, temporary_settings

from proactive_prefect.prefect_api import connect
from proactive_prefect.prefect_api.links import deployment_url, run_url, ui_url

USER, PASSWORD = "somebody", "p%40ss-3f1c8a72"


async def test_credentials_in_the_address_are_used_and_never_shown() -> None:
    """Requests carry them; no link, and not the URL that stands in errors and logs, has them."""
    heard: list[str] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.append((await reader.readuntil(b"\r\n\r\n")).decode())
        writer.write(b"HTTP/1.1 204 No Content\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    host = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with server:
        with temporary_settings({PREFECT_API_URL: f"http://{USER}:{PASSWORD}@{host}/api"}):
            async with connect() as api:
                assert api.url.rstrip("/") == f"http://{host}/api"
                await api.get("/anything")
            shown = [run_url("a-run"), deployment_url("a-deployment"), ui_url()]
        with temporary_settings({PREFECT_UI_URL: f"https://{USER}:{PASSWORD}@[::1]:4200"}):
            assert run_url("a-run") == "https://[::1]:4200/runs/flow-run/a-run"
    assert shown == [
        f"http://{host}/runs/flow-run/a-run",
        f"http://{host}/deployments/deployment/a-deployment",
        f"http://{host}",
    ]
    given = base64.b64encode(f"{USER}:p@ss-3f1c8a72".encode()).decode()
    assert f"authorization: basic {given}".lower() in heard[-1].lower()
