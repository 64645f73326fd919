"""What people write in front of stock Prefect to have webhooks, at its least: a call becomes a run, then the answer.

    python -m benchmarks.relay PORT DEPLOYMENT_ID FILE

`POST /hooks/empty` does nothing at all: what the web framework itself costs. The server's settings are the gateway's.
"""

from __future__ import annotations

import sys
from typing import Any

import uvicorn
from fastapi import FastAPI
from prefect.client.orchestration import get_client

from proactive_prefect.gateway.connections import connection_class
from proactive_prefect.settings import Settings

app = FastAPI()


@app.post("/hooks/empty", status_code=202)
async def empty() -> dict[str, str]:
    """Nothing."""
    return {"status": "accepted"}


@app.post("/hooks/relay", status_code=202)
async def relay(body: dict[str, Any]) -> dict[str, str]:
    """Create the run."""
    async with get_client() as client:
        made = await client.create_flow_run_from_deployment(
            sys.argv[2], parameters={"file": sys.argv[3], "key": body["key"]}
        )
    return {"flow_run_id": str(made.id)}


if __name__ == "__main__":
    settings = Settings()
    uvicorn.run(
        app, port=int(sys.argv[1]), http=connection_class(settings), ws="none", access_log=False, server_header=False
    )
