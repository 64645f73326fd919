"""A Prefect server behind a certificate of a private authority: what Prefect's settings say of it counts here too."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path
from uuid import uuid4

import pytest
from prefect.settings import (
    PREFECT_API_SSL_CERT_FILE,
    PREFECT_API_URL,
    PREFECT_CLIENT_MAX_RETRIES,
    temporary_settings,
)

from proactive_prefect.daemon.doctor import Finding, examine, examine_server
from proactive_prefect.daemon.work import wait_for_server
from proactive_prefect.errors import PrefectUnreachable
from proactive_prefect.prefect_api import connect
from proactive_prefect.prefect_api.overview import pool_workers
from proactive_prefect.settings import Settings

from ..conftest import Server, stop
from ..support import wait_until
from .running import start_worker
from .tls import Front, behind_tls


@pytest.fixture
async def front(prefect_server: Server, tmp_path: Path) -> AsyncIterator[Front]:
    """Prefect's settings name the server by its HTTPS address."""
    async with behind_tls(prefect_server, tmp_path) as front:
        with temporary_settings({PREFECT_API_URL: front.api_url}):
            yield front


async def test_a_worker_starts_where_the_certificate_is_trusted_by_a_setting(front: Front, tmp_path: Path) -> None:
    """`proactive worker` polls its pool seconds later."""
    pool = f"tls-{uuid4().hex[:8]}"
    log = tmp_path / "worker.log"
    own = {"PROACTIVE_HOME": str(tmp_path / "home"), "PROACTIVE_WORK_POOL": pool, "PREFECT_API_URL": front.api_url}
    trust = {"PREFECT_API_SSL_CERT_FILE": str(front.certificate)}
    worker = start_worker(tmp_path, {**os.environ, **own, **trust}, log)
    try:
        with temporary_settings({PREFECT_API_SSL_CERT_FILE: str(front.certificate)}):
            async with connect(Settings(home=tmp_path)) as api:

                async def polls() -> bool:
                    assert worker.poll() is None, log.read_text()
                    return any(one["status"] == "ONLINE" for one in await pool_workers(api, pool) or ())

                await wait_until(polls, what="the worker polls", timeout=120)
                await api.delete(f"/work_pools/{pool}")
    finally:
        stop(worker)


async def test_a_certificate_that_nobody_vouches_for_is_said_at_once(front: Front, tmp_path: Path) -> None:
    """Waiting would not help; the hint names the setting."""
    with pytest.raises(PrefectUnreachable, match="is not trusted") as refused:
        await wait_for_server(Settings(home=tmp_path), patience=600)
    assert "PREFECT_API_SSL_CERT_FILE" in refused.value.hint


async def test_a_server_that_is_not_there_is_waited_for_as_long_as_patience_lasts(front: Front, tmp_path: Path) -> None:
    """Then the address that was tried is named."""
    front.close()
    with pytest.raises(PrefectUnreachable, match=front.api_url):
        await wait_for_server(Settings(home=tmp_path), patience=0.5)


async def test_the_doctor_compares_clocks_by_prefects_own_client(front: Front, tmp_path: Path) -> None:
    """It trusts what Prefect trusts."""
    with temporary_settings({PREFECT_API_SSL_CERT_FILE: str(front.certificate)}):
        async with connect(Settings(home=tmp_path)) as api:
            findings = examine_server(api, fix=False)
            clock = await anext(findings)
            await findings.aclose()
    assert (clock.check, clock.level) == ("clock", "OK")


async def test_a_server_that_goes_away_while_it_is_examined_is_a_finding(front: Front, tmp_path: Path) -> None:
    """The doctor does not break off: what was found before is said, and that the server failed."""
    settings = Settings(home=tmp_path, config=tmp_path / "none.toml", work_pool="nobodys")
    found: list[Finding] = []
    with temporary_settings({PREFECT_API_SSL_CERT_FILE: str(front.certificate), PREFECT_CLIENT_MAX_RETRIES: 0}):
        async for finding in examine(settings, fix=False):
            found.append(finding)
            if finding.check == "worker":  # the last before the server itself is examined
                front.close()
    assert [finding.level for finding in found if finding.check == "server"] == ["OK", "FAIL"]
    assert found[-1].text.startswith("broke off while it was examined (")
    assert found[-1].todo
