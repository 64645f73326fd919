"""`/docs` in a real browser: it shows the routes, and asks nobody else for anything."""

from __future__ import annotations

import httpx
from playwright.async_api import expect

from tests.gateway.browsing import browsing, chromium
from tests.gateway.conftest import TOKEN, Gateway


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


async def test_a_browser_shows_the_routes(gateway: Gateway) -> None:
    """After the page's login /docs shows every route, under a policy that lets nothing from elsewhere in."""
    async with chromium() as browser, browsing(browser) as (tab, heard):
        await tab.goto(f"{gateway.url}/?token={TOKEN}")
        await tab.goto(f"{gateway.url}/docs")
        for route in ("/hooks/{rule_id}", "/api/v1/proactive/state"):
            await expect(tab.locator(f'[data-path="{route}"]').first).to_be_visible(timeout=60_000)
        assert "Unable to render" not in await tab.content()
        assert heard.complaints() == []
