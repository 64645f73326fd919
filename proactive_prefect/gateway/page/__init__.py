"""The page at `/`, its login, and the files that it is made of.

Login is as Jupyter does it: `proactive up` prints `/?token=…`; that begins a session and leads to the clean address.
The pages may load from here and nowhere else, run no inline script, and have no way to turn a text into markup: the
policy below says so to the browser, which keeps it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated
from urllib.parse import parse_qs

from fastapi import APIRouter, Depends, Query, Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse
from fastapi.staticfiles import StaticFiles
from pydantic import BaseModel, Field

from ...prefect_api.links import ui_url
from ..access import Reader, Role, begin_session, end_session, reader, role_of, session_of
from ..body import read_body
from ..problems import documented
from ..service import TheService

FILES = Path(__file__).parent / "files"
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; manifest-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Cache-Control": "no-store",
}
MAX_LOGIN = 8 * 1024
_REFUSED = '<p class="refused" role="alert">This token is not known here.</p>'

router = APIRouter()


class Session(BaseModel):
    """What the page has to know before it asks for anything."""

    role: Role = Field(description="A reader is shown no buttons that change something.")
    prefect_url: str | None = Field(description="Prefect's UI, where it has one.")
    push: bool = Field(description="Whether the event stream is switched on.")


@router.get("/", include_in_schema=False)
async def page(
    service: TheService, request: Request, token: Annotated[str | None, Query(max_length=MAX_LOGIN)] = None
) -> Response:
    """The page; the login form for who has no session; with `?token=`, the login itself."""
    if token is not None:
        return _login(service, request, token)
    if session_of(service.settings, request) is None:
        return _form()
    return HTMLResponse((FILES / "index.html").read_text("utf-8"), headers=HEADERS)


@router.post("/login", include_in_schema=False)
async def login(service: TheService, request: Request) -> Response:
    """Begin a session by the form's token."""
    fields = parse_qs((await read_body(request, MAX_LOGIN)).decode("utf-8", "replace"))
    return _login(service, request, fields.get("token", [""])[0])


@router.post("/logout", include_in_schema=False, status_code=204, dependencies=[Depends(reader)])
async def logout(service: TheService, request: Request) -> Response:
    """End the session."""
    answer = Response(status_code=204, headers=HEADERS)
    end_session(service.settings, request, answer)
    return answer


@router.get("/api/v1/proactive/session", tags=["page"], responses=documented(401))
async def session(service: TheService, caller: Reader) -> Session:
    """Who is asking, and what there is to be seen."""
    return Session(role=caller.name, prefect_url=ui_url(), push=service.settings.push_enabled)


class Files(StaticFiles):
    """The page's scripts and styles; nothing in them is secret."""

    def file_response(self, *args: object, **kwargs: object) -> Response:
        """The file, which a browser may keep but asks about again."""
        answer = super().file_response(*args, **kwargs)  # type: ignore[arg-type]
        answer.headers.update({**HEADERS, "Cache-Control": "no-cache"})
        return answer


def files() -> Files:
    """What is to be mounted at `/page`."""
    return Files(directory=FILES)


def _login(service: TheService, request: Request, token: str) -> Response:
    role = role_of(service.settings, token.strip())
    if role is None:
        return _form(_REFUSED)
    # Relative, so that it is right behind a proxy too; it takes the token out of the address.
    answer = RedirectResponse("./", 303, HEADERS)
    begin_session(service.settings, request, answer, role)
    return answer


def _form(said: str = "") -> Response:
    form = (FILES / "login.html").read_text("utf-8").replace("<!-- said -->", said)
    return HTMLResponse(form, 401, HEADERS)
