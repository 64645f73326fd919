"""Ledgers with something missed in them, and a Prefect that does not answer."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from prefect.settings import PREFECT_API_URL, temporary_settings

from proactive_prefect.prefect_api import PrefectApi, connect
from proactive_prefect.settings import Settings
from tests.ledger.conftest import ledger, ledger_settings, postgres_url
from tests.support import free_port

__all__ = ["ledger", "ledger_settings", "postgres_url"]


@pytest.fixture
async def away() -> AsyncIterator[PrefectApi]:
    """Prefect, while nothing answers at its address."""
    with temporary_settings({PREFECT_API_URL: f"http://127.0.0.1:{free_port()}/api"}):
        async with connect(Settings(api_patience=1)) as api:
            yield api
