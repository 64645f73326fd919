"""A real Chromium, and the page in it."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import AsyncIterator
from typing import Any

import pytest
from playwright.async_api import Browser, BrowserContext, Page, async_playwright

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
PATIENCE = 60_000  # milliseconds, for a machine that does much else
DESK = {"width": 1360, "height": 900}
PHONE = {"width": 390, "height": 844}


@contextlib.asynccontextmanager
async def chromium() -> AsyncIterator[Browser]:
    """A browser of the machine's own; the test is skipped where there is none."""
    if CHROMIUM is None:
        pytest.skip("no chromium on this machine")
    quiet = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-background-networking", "--disable-sync"]
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path=CHROMIUM, args=[*quiet, "--disable-component-update", "--no-first-run"], timeout=PATIENCE
        )
        yield browser
        await browser.close()


class Heard:
    """What a browser did beside showing the page: its requests, and what went wrong in it."""

    def __init__(self, context: BrowserContext) -> None:
        self.requests: list[str] = []
        self.errors: list[str] = []
        context.on("request", lambda request: self.requests.append(request.url))
        context.on("console", lambda said: self.errors.append(said.text) if said.type == "error" else None)
        context.on("weberror", lambda error: self.errors.append(str(error.error)))

    def complaints(self) -> list[str]:
        """What is the page's own fault: not that an answer was an error, or did not come."""
        return [text for text in self.errors if not text.startswith("Failed to load resource")]


@contextlib.asynccontextmanager
async def browsing(browser: Browser, **options: Any) -> AsyncIterator[tuple[Page, Heard]]:
    """A page of a new profile."""
    context = await browser.new_context(**{"viewport": DESK, "locale": "en-GB", "timezone_id": "UTC", **options})
    context.set_default_timeout(PATIENCE)
    heard = Heard(context)
    try:
        yield await context.new_page(), heard
    finally:
        await context.close()


async def is_live(page: Page) -> None:
    """Wait until the page hears of events."""
    await page.wait_for_selector('#stream[data-state="live"]')
