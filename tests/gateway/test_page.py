"""The page in a real Chromium, over a real ledger. Prefect is away; what takes it is in tests/acceptance."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from axe_playwright_python.async_playwright import Axe
from playwright.async_api import Browser, Page, expect
from prefect.settings import PREFECT_API_URL, temporary_settings
from sqlalchemy import select

from proactive_prefect.gateway import calendar, deliveries, missed, page, rules, stream
from proactive_prefect.gateway import why as whys
from proactive_prefect.ledger.db import Ledger, open_ledger
from proactive_prefect.ledger.deliveries import insert_new
from proactive_prefect.ledger.occurrences import apply
from proactive_prefect.ledger.tables import Resolution
from proactive_prefect.prefect_api import connect
from proactive_prefect.rules.models import HeartbeatRule, WebhookRule
from proactive_prefect.settings import Settings
from tests.gateway.browsing import DESK, PHONE, Heard, browsing, chromium, is_live
from tests.gateway.serving import READ, TOKEN, Known, serving
from tests.ledger.histories import LONG_AGO, a_run, story
from tests.ledger.test_why import RAN, note, seen
from tests.support import free_port, wait_until
from tests.webhooks.calls import a_call

pytestmark = pytest.mark.asyncio(loop_scope="module")
fixture = pytest_asyncio.fixture(loop_scope="module")

ROUTERS = (page.router, rules.router, stream.router, calendar.router, missed.router, whys.router, deliveries.router)
NOW = datetime.now(UTC)
MARKUP = '<img src=x onerror="window.pwned=1"><script>window.pwned=2</script><b>bold</b> javascript:alert(1)'
HELD = ("PAUSED/Missed",)


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def browser() -> AsyncIterator[Browser]:
    """One browser for all tests of this file."""
    async with chromium() as found:
        yield found


async def became(ledger: Ledger, run_id: str, *states: str, due: datetime, said: str = "", rule: str = "disk") -> None:
    """Let a run of the rule have gone through these states."""
    run = a_run(run_id, rule_id=rule, due=due)
    messages = [""] * (len(states) - 1) + [said]
    async with ledger.write() as session:
        await apply(session, run, story(run, *states, messages=messages), log_since=LONG_AGO)


@fixture
async def known(tmp_path: Path) -> AsyncIterator[Known]:
    """A gateway before which three rules have run, one of them described in markup, and three runs were missed."""
    settings = Settings(home=tmp_path, token=TOKEN, read_token=READ, api_patience=1)
    action = {"type": "python", "call": "a:b"}
    made: list[HeartbeatRule | WebhookRule] = [
        HeartbeatRule.model_validate({"id": "disk", "every": "6h", "action": action, "description": MARKUP}),
        HeartbeatRule.model_validate({"id": "mail", "cron": "0 9 * * *", "action": action}),
        WebhookRule.model_validate({"id": "hook", "action": action, "tags": [MARKUP]}),
    ]
    nowhere = temporary_settings({PREFECT_API_URL: f"http://127.0.0.1:{free_port()}/api"})
    with nowhere:
        async with open_ledger(settings) as ledger, connect(settings) as away:
            long_ago = NOW - timedelta(days=9)
            await note(ledger, *(seen(at=long_ago, rule=rule) for rule in made), at=long_ago)
            await became(ledger, "good", *RAN, due=NOW - timedelta(minutes=50), said=MARKUP)
            await became(ledger, "bad", *RAN[:3], "FAILED/Failed", due=NOW - timedelta(minutes=40), said="no room left")
            for number in range(3):
                due = NOW - timedelta(minutes=30 - number)
                await became(ledger, f"held-{number}", *HELD, due=due, rule="mail", said="its worker was away")
            async with ledger.write() as session:
                headers = json.dumps({"content-type": "application/json", "x-api-key": "sk-1", "x-note": MARKUP})
                sent = json.dumps({"text": MARKUP})
                call = a_call("their-id", due_at=NOW, status="dispatched", run_id="good", headers=headers, payload=sent)
                await insert_new(session, [call], {})
            yield Known(settings, ledger, away)


@fixture
async def url(known: Known) -> AsyncIterator[str]:
    """Where the page is served."""
    async with serving(known, *ROUTERS) as base:
        yield base


@fixture
async def shown(browser: Browser, url: str) -> AsyncIterator[tuple[Page, Heard]]:
    """The page as the operator has it before them, live, as a list of this week's days."""
    async with browsing(browser) as (tab, heard):
        await tab.goto(f"{url}/?token={TOKEN}")
        await tab.goto(f"{url}/#view=agenda")
        await is_live(tab)
        for there, count in (("#missed-body .row", 3), ("[data-rule]", 3), ("#deliveries-body .row", 1)):
            await expect(tab.locator(there)).to_have_count(count)
        await expect(tab.locator("#calendar-body .line").first).to_be_visible()
        yield tab, heard


async def test_the_token_in_the_link_is_gone_from_the_address(shown: tuple[Page, Heard], url: str) -> None:
    """What is left in the address is what is shown; logging out leads to the form, and the form in again."""
    tab, _ = shown
    assert "token" not in tab.url
    await tab.click("#logout")
    await tab.fill("#token", "wrong")
    await tab.click("text=Log in")
    await expect(tab.get_by_role("alert")).to_contain_text("not known")
    await tab.fill("#token", TOKEN)
    await tab.click("text=Log in")
    await is_live(tab)
    assert tab.url.partition("#")[0] == f"{url}/"


async def test_an_event_appears_without_a_reload(shown: tuple[Page, Heard], known: Known) -> None:
    """In the calendar, in its rule, among what runs, and in the log, as it happens."""
    tab, _ = shown
    await tab.evaluate("window.sameDocument = true")
    now = datetime.now(UTC)
    await became(known.ledger, "new", *RAN[:3], due=now)
    await expect(tab.locator("#running-body")).to_contain_text("disk")
    await expect(tab.locator("#running-title")).to_have_text("Running now · 1")
    await became(known.ledger, "new", *RAN, due=now, said="a new word")
    await expect(tab.locator("#running-body")).to_contain_text("Nothing runs now")
    await expect(tab.locator("#calendar-body")).to_contain_text("a new word")
    await expect(tab.locator('[data-rule="disk"] .last')).to_contain_text("a new word")
    await expect(tab.locator("#latest-body li").first).to_contain_text("disk completed")
    assert await tab.evaluate("window.sameDocument") is True


async def test_a_rule_is_there_once_whoever_asked_for_the_rules_meanwhile(shown: tuple[Page, Heard]) -> None:
    """An event asks for its rule in a moment; what a click asks for before that answers it too."""
    tab, _ = shown
    await tab.evaluate(
        """async () => {
            const { loadAfter, loadAll } = await import("/page/js/load.js");
            const occurred_at_utc = new Date().toISOString();
            loadAfter({ seq: 1e6, source_ref: "disk", event_type: "made_up", occurred_at_utc });
            await loadAll();
            await new Promise((done) => setTimeout(done, 1500)); // an event's question waits for a second at most
        }"""
    )
    assert await tab.locator("[data-rule]").count() == 3


async def test_a_stream_that_was_cut_is_followed_again_and_nothing_is_missed(browser: Browser, known: Known) -> None:
    """While it is down the page says so; what happened meanwhile is there afterwards, without a reload."""
    port = free_port()
    async with browsing(browser) as (tab, _):
        async with serving(known, *ROUTERS, port=port) as url:
            await tab.goto(f"{url}/?token={TOKEN}")
            await is_live(tab)
        await tab.wait_for_selector('#stream[data-state="lost"]')
        await expect(tab.locator("#stream")).to_have_text("asks every 30 s")
        await became(known.ledger, "meanwhile", *RAN, due=datetime.now(UTC), said="meanwhile")
        async with serving(known, *ROUTERS, port=port):
            await is_live(tab)
            await expect(tab.locator('[data-rule="disk"] .last')).to_contain_text("meanwhile")
            await expect(tab.locator("#latest-body")).to_contain_text("meanwhile")


async def test_a_tab_that_nobody_sees_lets_go_of_the_stream(shown: tuple[Page, Heard], known: Known) -> None:
    """So that many open tabs do not use up the browser's connections; looked at again, it knows all."""
    tab, _ = shown
    show = """(state) => {
        Object.defineProperty(document, "visibilityState", { value: state, configurable: true });
        document.dispatchEvent(new Event("visibilitychange"));
    }"""
    await tab.evaluate(show, "hidden")
    await wait_until(lambda: known.push.readers == 0, what="the stream is let go of")
    await became(known.ledger, "unseen", *RAN, due=datetime.now(UTC), said="unseen")
    await tab.evaluate(show, "visible")
    await is_live(tab)
    await expect(tab.locator('[data-rule="disk"] .last')).to_contain_text("unseen")


async def test_without_push_the_page_asks_now_and_then(browser: Browser, known: Known) -> None:
    """It says so, and Refresh reads everything at once."""
    known.settings = known.settings.model_copy(update={"push_enabled": False})
    async with serving(known, *ROUTERS) as url, browsing(browser) as (tab, _):
        await tab.goto(f"{url}/?token={TOKEN}")
        await tab.wait_for_selector('#stream[data-state="off"]')
        await became(known.ledger, "later", *RAN, due=datetime.now(UTC), said="later on")
        await tab.click("#refresh")
        await expect(tab.locator('[data-rule="disk"] .last')).to_contain_text("later on")


async def test_a_missed_run_is_approved_and_the_account_says_by_whom(shown: tuple[Page, Heard], known: Known) -> None:
    """One by its own button; it leaves the queue of what waits for a decision, also while Prefect is away."""
    tab, _ = shown
    row = tab.locator("#missed-body .row").first
    await row.get_by_role("button", name="Run").click()
    await expect(tab.locator("#toasts")).to_contain_text("1 missed run approved")
    await expect(tab.locator("#missed-body .row input")).to_have_count(2)
    async with known.ledger.read() as session:
        made = (await session.scalars(select(Resolution))).one()
    assert (made.action, made.resolved_by, made.via) == ("approve_backfill_run", "operator", "page")


async def test_many_are_decided_at_once_after_a_question(shown: tuple[Page, Heard], known: Known) -> None:
    """All of them, or those that are chosen; Cancel changes nothing; rescheduling asks for a time."""
    tab, _ = shown
    await tab.get_by_label("All 3").click()
    await tab.get_by_role("group", name="Decide about the chosen ones").get_by_role("button", name="Delete…").click()
    await expect(tab.get_by_role("dialog")).to_contain_text("Delete 3 missed runs?")
    await tab.get_by_role("dialog").get_by_role("button", name="Cancel").click()
    await tab.locator("#missed-body .row input").first.click()
    await expect(tab.get_by_text("2 chosen")).to_be_visible()
    bulk = tab.get_by_role("group", name="Decide about the chosen ones")
    await bulk.get_by_role("button", name="Reschedule…").click()
    await tab.get_by_label("When").fill((datetime.now(UTC) + timedelta(days=1)).strftime("%Y-%m-%dT%H:%M"))
    await tab.get_by_role("dialog").get_by_role("button", name="Reschedule").click()
    await expect(tab.locator("#toasts")).to_contain_text("2 missed runs rescheduled")
    await tab.locator("#missed-body .row").get_by_role("button", name="Delete…").click()
    await tab.get_by_role("dialog").get_by_role("button", name="Delete").click()
    await expect(tab.locator("#missed-body")).to_contain_text("Nothing waits for a decision")
    async with known.ledger.read() as session:
        made = (await session.scalars(select(Resolution))).all()
    assert sorted(one.action for one in made) == ["delete_missed", "reschedule", "reschedule"]


async def test_all_that_were_due_before_a_time_are_decided_at_once(shown: tuple[Page, Heard], known: Known) -> None:
    """What was due then or later stays in the queue."""
    tab, _ = shown
    last = NOW - timedelta(minutes=28)  # the field takes whole minutes, and the last one is due within this
    await tab.get_by_label("due before").fill(last.strftime("%Y-%m-%dT%H:%M"))
    await expect(tab.locator("#missed-body .row")).to_have_count(2)
    await tab.get_by_label("All 2").click()
    bulk = tab.get_by_role("group", name="Decide about the chosen ones")
    await bulk.get_by_role("button", name="Approve and run").click()
    await tab.get_by_role("dialog").get_by_role("button", name="Approve and run").click()
    await expect(tab.locator("#toasts")).to_contain_text("2 missed runs approved")
    await tab.get_by_label("due before").fill("")
    await expect(tab.locator("#missed-body .row input")).to_have_count(1)
    async with known.ledger.read() as session:
        made = (await session.scalars(select(Resolution))).all()
    assert [(one.action, one.via) for one in made] == [("approve_backfill_run", "page")] * 2


async def test_markup_from_outside_stays_text(shown: tuple[Page, Heard], url: str) -> None:
    """In a description, in what a run said, in the log and in the dialog; and no script can put it in otherwise."""
    tab, heard = shown
    await tab.click("#calendar-body .line:has-text('completed')")
    await tab.click("text=Why?")
    await expect(tab.get_by_role("dialog").locator(".why li").first).to_be_visible()
    for place in ("#rules-body", "#latest-body", "#calendar-body", "dialog"):
        assert MARKUP in " ".join((await tab.locator(place).inner_text()).split()), place
    assert await tab.evaluate("window.pwned") is None
    assert await tab.locator("main img, dialog img, main script, main b, dialog b").count() == 0
    assert heard.complaints() == []
    ways = ["document.body.innerHTML = '<b>x</b>'", "document.body.setAttribute('onclick', 'window.pwned = 3')"]
    for way in ways:
        refused = await tab.evaluate(f"() => {{ try {{ {way}; return null }} catch (error) {{ return error.name }} }}")
        assert refused == "TypeError", way


async def test_a_delivery_is_shown_replayed_and_erased(shown: tuple[Page, Heard]) -> None:
    """What its caller sent stays text, without what may be a secret; a replay is one more, an erasure lasts."""
    tab, heard = shown
    rows, dialog = tab.locator("#deliveries-body .row"), tab.get_by_role("dialog")
    await expect(rows).to_have_count(1)
    await expect(rows).to_contain_text("has its run")
    await rows.get_by_role("button", name="Show delivery their-id of hook").click()
    await expect(dialog.locator("pre")).to_contain_text(json.dumps(MARKUP))
    await dialog.get_by_text("3 headers").click()
    await expect(dialog).to_contain_text(MARKUP)
    await expect(dialog).to_contain_text("(redacted)")
    assert "sk-1" not in await tab.content()
    assert await tab.locator("dialog img, dialog script, dialog b").count() == 0
    await dialog.get_by_role("button", name="Replay").click()
    await dialog.get_by_role("button", name="Replay").click()
    await expect(rows).to_have_count(2)
    await expect(rows.first).to_contain_text("waiting")
    await rows.last.get_by_role("button", name="Show").click()
    await dialog.get_by_role("button", name="Erase").click()
    await dialog.get_by_role("button", name="Erase").click()
    await expect(rows.last).to_contain_text("4 bytes")  # null
    await rows.last.get_by_role("button", name="Show").click()
    await expect(dialog).to_contain_text("Headers and payload were taken away.")
    assert await dialog.get_by_role("button", name="Replay").count() == 0
    assert heard.complaints() == []


async def test_nothing_is_asked_of_any_other_host(shown: tuple[Page, Heard], url: str) -> None:
    """Every request of the whole visit goes to the gateway, and the policy lets no other one out."""
    tab, heard = shown
    for view in ("Day", "Week", "Agenda"):
        await tab.get_by_role("button", name=view, exact=True).click()
    await tab.click("#refresh")
    await expect(tab.locator("#toasts")).to_be_visible()
    assert heard.requests
    assert {one for one in heard.requests if not one.startswith(f"{url}/")} == set()
    refused = await tab.evaluate("fetch('http://127.0.0.1:1/').then(() => null, (error) => error.name)")
    assert refused == "TypeError"
    assert any("Content Security Policy" in text for text in heard.errors)


async def test_everything_is_reached_by_the_keyboard(shown: tuple[Page, Heard]) -> None:
    """Tab reaches every control, each has a name; keys change the view; the dialog gives the focus back."""
    tab, _ = shown
    there = await tab.evaluate("""() => [...document.querySelectorAll("button, a[href], input, select, summary")]
        .filter((one) => one.checkVisibility() && !one.disabled && !one.closest("dialog")).length""")
    reached: list[str] = []
    for _ in range(there + 10):
        await tab.keyboard.press("Tab")
        found: list[Any] = await tab.evaluate("""() => {
            const one = document.activeElement;
            if (one === document.body) return [null, ""];
            window.walked ??= new Set();
            window.walked.add(one);
            const label = one.labels?.[0]?.textContent || one.getAttribute("aria-label") || one.textContent;
            return [one.tagName, (label || one.title).trim()];
        }""")
        if found[0] is not None:
            assert found[1], f"{found[0]} has no name"
            reached.append(found[1])
    missing = await tab.evaluate("""() => [...document.querySelectorAll("button, a[href], input, select, summary")]
        .filter((one) => one.checkVisibility() && !one.disabled && !one.closest("dialog") && !window.walked.has(one))
        .map((one) => one.outerHTML)""")
    assert missing == []
    assert reached[0] == "Skip to the calendar"
    await tab.evaluate("document.activeElement.blur()")
    for key, name in (("d", "Day"), ("w", "Week"), ("a", "Agenda")):
        await tab.keyboard.press(key)
        await expect(tab.get_by_role("button", name=name, exact=True)).to_have_attribute("aria-pressed", "true")
    await tab.keyboard.press("/")
    await tab.keyboard.type("mail")
    await expect(tab.locator("#rules-body tbody tr")).to_have_count(1)
    line = tab.locator("#calendar-body .line").first
    await line.focus()
    await tab.keyboard.press("Enter")
    await expect(tab.get_by_role("dialog")).to_contain_text("mail")
    await tab.keyboard.press("Escape")
    await expect(line).to_be_focused()


async def test_a_list_that_is_drawn_anew_keeps_the_focus(shown: tuple[Page, Heard], known: Known) -> None:
    """Who is about to press a button is not thrown off it by an event."""
    tab, _ = shown
    button = tab.locator('[data-rule="disk"]').get_by_role("button", name="Run now")
    await button.focus()
    await became(known.ledger, "meanwhile", *RAN, due=datetime.now(UTC), said="meanwhile")
    await expect(tab.locator('[data-rule="disk"] .last')).to_contain_text("meanwhile")
    await expect(button).to_be_focused()


async def test_a_click_that_was_not_answered_and_the_next_are_one_run(shown: tuple[Page, Heard]) -> None:
    """While nobody knows what became of *run now*, another click asks for the same run; after that, for a new one."""
    tab, _ = shown
    keys: list[str] = []
    tab.on(
        "request", lambda one: keys.append(one.headers["idempotency-key"]) if one.url.endswith("/disk/run") else None
    )
    button = tab.locator('[data-rule="disk"]').get_by_role("button", name="Run now")
    for count in (1, 2):  # Prefect is away: 503
        async with tab.expect_response("**/disk/run") as answered:
            await button.click()
        assert ((await answered.value).status, len(keys)) == (503, count)
    told = json.dumps({"rule": "disk", "done": "triggered", "run_id": "r", "url": None})
    await tab.route("**/disk/run", lambda route: route.fulfill(body=told, content_type="application/json"))
    for _ in range(2):
        async with tab.expect_response("**/disk/run") as answered:
            await button.click()
        assert (await answered.value).status == 200
        await expect(tab.get_by_text("disk runs now").first).to_be_visible()
    assert len(keys) == 4
    assert keys[0] == keys[1] == keys[2] != keys[3]


async def test_filters_hold_for_everything(shown: tuple[Page, Heard], browser: Browser) -> None:
    """By rule, kind and outcome; they stand in the address, so that a reload keeps them."""
    tab, _ = shown
    await tab.select_option("#filter-outcome", "failed")
    await expect(tab.locator("#calendar-body .line")).to_have_count(1)
    await expect(tab.locator("#calendar-body .line")).to_contain_text("no room left")
    await expect(tab.locator("#missed-body .row")).to_have_count(0)
    await tab.reload()
    await is_live(tab)
    await expect(tab.locator("#calendar-body .line")).to_have_count(1)
    await tab.click("#filter-clear")
    await tab.select_option("#filter-kind", "webhook")
    await expect(tab.locator("#rules-body tbody tr")).to_have_count(1)
    await tab.select_option("#filter-kind", "")
    await tab.fill("#filter-rule", "mai")
    await expect(tab.locator("#missed-body .row")).to_have_count(3)
    await expect(tab.locator("#rules-body tbody tr")).to_have_count(1)


async def test_who_may_only_read_is_shown_no_buttons_that_change_something(browser: Browser, url: str) -> None:
    """The link with the read token."""
    async with browsing(browser) as (tab, _):
        await tab.goto(f"{url}/?token={READ}")
        await expect(tab.locator("#missed-body .row")).to_have_count(3)
        for name in ("Run now", "Pause", "Approve and run", "Delete…"):
            assert await tab.get_by_role("button", name=name).count() == 0


@pytest.mark.parametrize(("scheme", "size"), [("light", DESK), ("dark", PHONE)], ids=["desk-light", "phone-dark"])
async def test_the_rules_of_accessibility_are_kept(
    scheme: str, size: dict[str, int], browser: Browser, url: str
) -> None:
    """axe finds nothing wrong: in any view, with the dialog, on the login form; contrast included."""
    async with browsing(browser, color_scheme=scheme, viewport=size, bypass_csp=True) as (tab, _):
        await tab.goto(url)
        await no_violations(tab, "login")
        await tab.goto(f"{url}/?token={TOKEN}")
        await is_live(tab)
        for view in ("Day", "Week", "Agenda"):
            await tab.get_by_role("button", name=view, exact=True).click()
            await expect(tab.locator("#calendar-body [data-entry]").first).to_be_visible()
            await no_violations(tab, view)
        await tab.locator("#calendar-body [data-entry]").first.click()
        await no_violations(tab, "dialog")


async def no_violations(tab: Page, where: str) -> None:
    """Fail with what axe says, if it finds anything."""
    found = (await Axe().run(tab)).response["violations"]
    said = [(one["id"], node["html"][:200], node.get("failureSummary", "")) for one in found for node in one["nodes"]]
    assert said == [], where


@pytest.mark.parametrize("width", [320, 390, 768])
async def test_a_narrow_screen_is_not_scrolled_sideways(width: int, browser: Browser, url: str) -> None:
    """Whatever long words there are; only the week's table scrolls, in itself."""
    async with browsing(browser, viewport={"width": width, "height": 800}) as (tab, _):
        await tab.goto(f"{url}/?token={TOKEN}")
        await is_live(tab)
        for view in ("Agenda", "Day", "Week"):
            await tab.get_by_role("button", name=view, exact=True).click()
            await expect(tab.locator("#calendar-body [data-entry]").first).to_be_visible()
            assert await tab.evaluate("document.documentElement.scrollWidth") <= width


async def test_prefect_away_is_said_and_the_rest_is_there(shown: tuple[Page, Heard]) -> None:
    """A button that needs Prefect says why it did nothing."""
    tab, _ = shown
    await tab.locator('[data-rule="disk"]').get_by_role("button", name="Pause").click()
    await expect(tab.locator("#toasts .bad")).to_contain_text("Prefect does not answer")
    await expect(tab.locator("#calendar-body .line").first).to_be_visible()
