"""`/docs` in a real browser: it shows the routes, and asks nobody else for anything."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import httpx
import pytest

from tests.gateway.conftest import TOKEN, Gateway

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome") or ""


def test_the_page_and_the_document_are_for_who_may_read(http: httpx.Client) -> None:
    """Without a token 401; every address in the page is one of this gateway."""
    for path in ("/docs", "/openapi.json"):
        assert http.get(path).status_code == 401
    answer = http.get("/docs", headers={"Authorization": f"Bearer {TOKEN}"})
    assert answer.status_code == 200
    assert "//" not in answer.text
    assert "script-src 'self';" in answer.headers["content-security-policy"]
    for file in ("docs/files/swagger-ui-bundle.js", "docs/files/swagger-ui.css", "docs/start.js"):
        assert file in answer.text
        assert http.get(f"/{file}").status_code == 200


@pytest.mark.skipif(not CHROMIUM, reason="there is no Chromium on this machine")
def test_a_browser_shows_the_routes(gateway: Gateway, tmp_path: Path) -> None:
    """After the page's login /docs shows every route, under a policy that lets nothing from elsewhere in."""

    def look(path: str, *more: str) -> subprocess.CompletedProcess[str]:
        options = [
            "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
            "--disable-background-networking", "--disable-component-update", "--disable-sync",
            f"--user-data-dir={tmp_path}", "--virtual-time-budget=20000", "--enable-logging=stderr", *more,
        ]  # fmt: skip
        words = [CHROMIUM, *options, "--dump-dom", f"{gateway.url}{path}"]
        return subprocess.run(words, capture_output=True, text=True, timeout=120)

    look(f"/?token={TOKEN}")
    seen = look("/docs")
    assert "/hooks/{rule_id}" in seen.stdout.replace("\u200b", ""), seen.stdout[-2000:]
    assert "/api/v1/proactive/state" in seen.stdout.replace("\u200b", "")
    assert "Content Security Policy" not in seen.stderr, seen.stderr[-2000:]
    assert "Unable to render" not in seen.stdout
