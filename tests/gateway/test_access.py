"""Who gets in: tokens, sessions, and what each may do. The application itself, over ASGI; no Prefect is needed."""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncIterator
from http.cookies import SimpleCookie
from pathlib import Path

import httpx
import pytest
from fastapi import Depends, FastAPI

from proactive_prefect.errors import InputError
from proactive_prefect.gateway import page
from proactive_prefect.gateway.access import PAGE_HEADER, SESSION_SECONDS, Operator, Reader, Subscriber, operator
from proactive_prefect.gateway.problems import answer_with_problems
from proactive_prefect.gateway.serve import serve
from proactive_prefect.settings import Settings

TOKEN, READ = "operator-3f1c8a72", "read-b9d64e05"
PAGE = {PAGE_HEADER: "1"}


class Known:
    """As much of a gateway as its doors need."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings


def gateway(settings: Settings) -> FastAPI:
    """The real page and the real guards, before routes that say who came."""
    app = FastAPI()
    app.state.service = Known(settings)
    answer_with_problems(app)
    app.include_router(page.router)
    app.mount("/page", page.files())

    @app.get("/look")
    async def look(caller: Reader) -> str:
        return f"{caller.name} {caller.via}"

    @app.get("/stream")
    async def stream(caller: Subscriber) -> str:
        return f"{caller.name} {caller.via}"

    @app.post("/change")
    async def change(caller: Operator) -> str:
        return f"{caller.name} {caller.via}"

    @app.get("/private", dependencies=[Depends(operator)])
    async def private() -> str:
        return "yes"

    return app


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Settings with both tokens given."""
    return Settings(home=tmp_path, token=TOKEN, read_token=READ)


@pytest.fixture
async def http(settings: Settings) -> AsyncIterator[httpx.AsyncClient]:
    """A browser, as far as cookies go."""
    transport = httpx.ASGITransport(gateway(settings))
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:4280") as client:
        yield client


@pytest.mark.parametrize(
    ("given", "look", "change"),
    [
        ({}, 401, 401),
        ({"Authorization": f"Bearer {TOKEN}"}, 200, 200),
        ({"Authorization": f"bearer {TOKEN}"}, 200, 200),
        ({"Authorization": f"Bearer {READ}"}, 200, 403),
        ({"Authorization": f"Bearer {TOKEN} x"}, 401, 401),
        ({"Authorization": "Bearer "}, 401, 401),
        ({"Authorization": f"Basic {TOKEN}"}, 401, 401),
        ({"Cookie": f"proactive-00000000=operator.9999999999.aa.{'0' * 64}"}, 401, 401),
    ],
)
async def test_a_token_gives_its_rights_and_no_others(
    given: dict[str, str], look: int, change: int, http: httpx.AsyncClient
) -> None:
    """The operator may do all, the read token only look, and nobody else anything."""
    assert (await http.get("/look", headers=given)).status_code == look
    assert (await http.get("/private", headers=given)).status_code == change
    assert (await http.post("/change", headers=given)).status_code == change


async def test_only_the_read_token_is_taken_in_an_address_and_only_where_headers_cannot_be_set(
    http: httpx.AsyncClient,
) -> None:
    """`?token=` opens the stream to a reader; the operator's opens nothing there, nor the read token elsewhere."""
    assert (await http.get("/stream", params={"token": READ})).json() == "reader api"
    assert (await http.get("/stream", params={"token": TOKEN})).status_code == 401
    assert (await http.get("/stream", params={"token": ""})).status_code == 401
    assert (await http.get("/look", params={"token": READ})).status_code == 401
    assert (await http.post("/change", params={"token": TOKEN})).status_code == 401


async def test_the_printed_link_begins_a_session_and_leads_to_a_clean_address(http: httpx.AsyncClient) -> None:
    """`/?token=…` sets a cookie that scripts cannot read and other sites cannot send, and redirects."""
    answer = await http.get("/", params={"token": TOKEN})
    assert (answer.status_code, answer.headers["location"]) == (303, "./")
    assert answer.headers["referrer-policy"] == "no-referrer"
    cookie = next(iter(SimpleCookie(answer.headers["set-cookie"]).values()))
    assert (cookie["httponly"], cookie["samesite"], cookie["secure"]) == (True, "strict", "")
    assert TOKEN not in answer.headers["set-cookie"]
    shown = await http.get("/")
    assert (shown.status_code, shown.headers["cache-control"]) == (200, "no-store")
    assert (await http.get("/look")).json() == "operator page"
    assert (await http.get("/api/v1/proactive/session")).json()["role"] == "operator"


async def test_the_form_begins_a_session_too(http: httpx.AsyncClient) -> None:
    """Who has no session sees the form; a wrong token is said to be one, and nothing of it comes back."""
    form = await http.get("/")
    assert (form.status_code, "<form" in form.text) == (401, True)
    wrong = await http.post("/login", data={"token": "<i>wrong"})
    assert (wrong.status_code, "not known here" in wrong.text, "wrong" in wrong.text) == (401, True, False)
    assert "set-cookie" not in wrong.headers
    assert (await http.get("/", params={"token": "wrong"})).status_code == 401
    right = await http.post("/login", data={"token": f" {TOKEN}\n"})
    assert right.status_code == 303
    assert (await http.get("/")).status_code == 200


async def test_a_session_changes_things_for_the_page_only(http: httpx.AsyncClient) -> None:
    """A form or a script of another site, which brings the cookie along, cannot bring the page's header."""
    await http.get("/", params={"token": TOKEN})
    assert (await http.post("/change")).status_code == 403
    assert (await http.post("/change", headers=PAGE)).json() == "operator page"
    for site in ("cross-site", "same-site", "none"):
        assert (await http.post("/change", headers={**PAGE, "Sec-Fetch-Site": site})).status_code == 403
    assert (await http.post("/change", headers={**PAGE, "Sec-Fetch-Site": "same-origin"})).status_code == 200
    asked = {"Origin": "http://evil.example", "Access-Control-Request-Method": "POST"}
    refused = await http.options("/change", headers={**asked, "Access-Control-Request-Headers": PAGE_HEADER})
    assert "access-control-allow-origin" not in refused.headers


async def test_a_session_of_the_read_token_only_looks(http: httpx.AsyncClient) -> None:
    """The link with the read token shows the page to somebody who may change nothing."""
    await http.get("/", params={"token": READ})
    assert (await http.get("/look")).json() == "reader page"
    assert (await http.post("/change", headers=PAGE)).status_code == 403


async def test_logging_out_ends_the_session(http: httpx.AsyncClient) -> None:
    """After it there is no cookie left to come back with."""
    await http.get("/", params={"token": TOKEN})
    assert (await http.post("/logout")).status_code == 403
    assert (await http.post("/logout", headers=PAGE)).status_code == 204
    assert not http.cookies
    assert (await http.get("/")).status_code == 401


async def test_a_session_cannot_be_made_up_and_ends_by_time_or_by_another_token(
    http: httpx.AsyncClient, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No piece of a cookie can be changed; it is over after a week, and once either token is a new one."""
    await http.get("/", params={"token": READ})
    ((name, value),) = http.cookies.items()
    role, expires, nonce, signature = value.split(".")
    for forged in (
        f"operator.{expires}.{nonce}.{signature}",
        f"{role}.{int(expires) + 1}.{nonce}.{signature}",
        f"{role}.{expires}.{nonce}.{signature[:-1]}",
        f"{role}.{expires}.{nonce}.",
        f".{signature}",
        "",
        "....",
        "é",
    ):
        sent = httpx.Headers({"Cookie": f"{name}={forged}".encode("latin-1").decode("latin-1")}, encoding="latin-1")
        assert (await http.get("/look", headers=sent)).status_code == 401, forged
    cookie = {"Cookie": f"{name}={value}"}
    http.cookies.clear()
    assert (await http.get("/look", headers=cookie)).status_code == 200
    with monkeypatch.context() as later:
        now = time.time()
        later.setattr(time, "time", lambda: now + SESSION_SECONDS + 1)
        assert (await http.get("/look", headers=cookie)).status_code == 401
    for changed in ({"token": "another"}, {"read_token": "another"}):
        settings_now = settings.model_copy(update=changed)
        transport = httpx.ASGITransport(gateway(settings_now))
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:4280") as other:
            assert (await other.get("/look", headers=cookie)).status_code == 401


async def test_the_cookie_is_for_https_only_where_callers_come_by_https(settings: Settings) -> None:
    """Also where it is a proxy that speaks it."""
    behind = settings.model_copy(update={"gateway_url": "https://proactive.example"})
    async with httpx.AsyncClient(transport=httpx.ASGITransport(gateway(behind)), base_url="http://inside") as client:
        answer = await client.get("/", params={"token": TOKEN})
        assert "; Secure" in answer.headers["set-cookie"]


async def test_what_is_shown_may_load_from_the_gateway_only(http: httpx.AsyncClient) -> None:
    """The form, the page and its files all carry the policy, and the files are there for everybody."""
    answers = [await http.get("/"), await http.get("/page/login.html"), await http.get("/page/icon.svg")]
    await http.get("/", params={"token": TOKEN})
    answers.append(await http.get("/"))
    for answer in answers:
        policy = answer.headers["content-security-policy"]
        assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self';")
        assert "unsafe" not in policy
        assert "http" not in policy
    for path in ("/page/../__init__.py", "/page/%2e%2e/__init__.py", "/page/", "/page/nothing.js"):
        assert (await http.get(path)).status_code in (401, 404)


async def test_tokens_are_in_no_log(http: httpx.AsyncClient, caplog: pytest.LogCaptureFixture) -> None:
    """Whatever comes with a request."""
    with caplog.at_level(logging.DEBUG, "proactive"):
        await http.get("/", params={"token": TOKEN})
        await http.get("/stream", params={"token": READ})
        await http.post("/login", data={"token": TOKEN})
    ours = "".join(record.getMessage() for record in caplog.records if record.name.startswith("proactive"))
    assert TOKEN not in ours
    assert READ not in ours


def test_the_two_tokens_are_two(tmp_path: Path) -> None:
    """One text for both would give readers the operator's rights: the gateway does not start."""
    with pytest.raises(InputError, match="are the same"):
        serve(Settings(home=tmp_path, token="one", read_token="one", gateway_port=0))
