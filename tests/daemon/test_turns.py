"""Creations of runs, while others write to the embedded server's database all the time."""

from __future__ import annotations

import sqlite3
import threading
import time
from pathlib import Path

import httpx

from proactive_prefect.daemon.turns import CREATE
from proactive_prefect.prefect_api import connect
from proactive_prefect.prefect_api.deployments import deployed_rules
from tests.conftest import Server
from tests.gateway.conftest import apply, forget, fresh


def test_prefect_has_the_functions_whose_turn_it_is() -> None:
    """Their names are Prefect's own: a version that calls them otherwise fails here."""
    from prefect.server.api import deployments

    assert all(callable(getattr(deployments, name)) for name in CREATE)


async def test_creations_wait_for_their_turn(prefect_server: Server) -> None:
    """Not one is refused, alone or in bulk, where stock Prefect refuses nearly every one."""
    await apply("turns", {"id": "turn"})
    async with connect() as api:
        deployment = next(one.deployment_id for one in await deployed_rules(api) if one.rule.id == "turn")
    stop, written = threading.Event(), 0

    def write() -> None:
        nonlocal written
        database = sqlite3.connect(Path(prefect_server.env["PREFECT_HOME"]) / "prefect.db", timeout=60)
        database.isolation_level = None
        database.execute("CREATE TABLE IF NOT EXISTS others (n INTEGER)")
        while not stop.is_set():
            database.execute("BEGIN IMMEDIATE")
            database.execute("INSERT INTO others VALUES (1)")
            time.sleep(0.002)  # as long as a transaction of a worker takes, at its least
            database.execute("COMMIT")
            time.sleep(0.002)
            written += 1
        database.execute("DROP TABLE others")
        database.close()

    other = threading.Thread(target=write)
    other.start()
    try:
        path = f"{prefect_server.api_url}/deployments/{deployment}/create_flow_run"
        async with httpx.AsyncClient(timeout=120) as http:
            rounds = 0
            while rounds < 3 or (written < 10 and rounds < 50):  # the other has to get its turns as well
                rounds += 1
                one = await http.post(path, json={"idempotency_key": fresh("turn")})
                assert one.status_code == 201, one.text
                many = await http.post(f"{path}/bulk", json=[{"idempotency_key": fresh("turn")} for _ in range(5)])
                assert [made["status"] for made in many.json()["results"]] == ["CREATED"] * 5
    finally:
        stop.set()
        other.join()
        await forget("turns")
    assert written >= 10
