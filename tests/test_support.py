"""The test session's own server is a real one."""

from __future__ import annotations

import httpx

from .conftest import Server


def test_the_test_server_answers(prefect_server: Server) -> None:
    """The server that the tests use is healthy and names its version."""
    assert httpx.get(f"{prefect_server.api_url}/admin/version").json().startswith("3.")
