"""Who may do what at the gateway: the operator all of it, a reader only look.

A caller shows a token (`Authorization: Bearer …`), or the cookie of a session that a token has begun: that is how the
page does it. The read token is also taken as `?token=…` where a caller cannot set headers (the event stream, the
calendar's feed); the operator's never is but by the login, since addresses end up in histories and logs.

A session is a signed cookie and nothing is kept of it: it is good at every gateway that has the same tokens, also
after a restart, and a change of either token ends all sessions.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import time
from dataclasses import dataclass
from typing import Annotated, Literal

from fastapi import Depends, HTTPException, Request, Response, Security
from fastapi.security import APIKeyQuery, HTTPAuthorizationCredentials, HTTPBearer

from ..settings import Settings
from .secrets import operator_token, read_token, same_secret
from .service import TheService

Role = Literal["operator", "reader"]

SESSION_SECONDS = 7 * 24 * 3600
PAGE_HEADER = "X-Proactive-Page"
"""Pages of other origins cannot send a header of their own making without being asked, and are refused then."""
_SAFE = {"GET", "HEAD"}


@dataclass(frozen=True)
class Caller:
    """Who sent a request. `via` is how they are known: by a token (api), or by the page's session (page)."""

    name: Role
    via: Literal["api", "page"]


def role_of(settings: Settings, token: str) -> Role | None:
    """Whose token that is; None if nobody's. Raises SecretMissing if a token of ours cannot be read."""
    # Both are compared in any case: the time tells nothing.
    is_operators = same_secret(token, operator_token(settings))
    is_readers = same_secret(token, read_token(settings))
    return "operator" if is_operators else "reader" if is_readers else None


def begin_session(settings: Settings, request: Request, answer: Response, role: Role) -> None:
    """Let the caller of `request` come back with that role, by a cookie on `answer`."""
    claim = f"{role}.{int(time.time()) + SESSION_SECONDS}.{secrets.token_hex(8)}"
    answer.set_cookie(
        _cookie(settings),
        f"{claim}.{_sign(settings, claim)}",
        max_age=SESSION_SECONDS,
        httponly=True,
        samesite="strict",
        secure=_is_https(settings, request),
    )


def end_session(settings: Settings, request: Request, answer: Response) -> None:
    """Take the cookie away."""
    answer.delete_cookie(_cookie(settings), httponly=True, samesite="strict", secure=_is_https(settings, request))


def session_of(settings: Settings, request: Request) -> Role | None:
    """The role of the session that the request belongs to; None without one."""
    claim, _, signature = request.cookies.get(_cookie(settings), "").rpartition(".")
    if not same_secret(signature, _sign(settings, claim)):
        return None
    role, expires, _ = claim.split(".")
    if int(expires) < time.time():
        return None
    return "operator" if role == "operator" else "reader"


def is_operator(settings: Settings, request: Request) -> bool:
    """Whether the operator asks: by the token, or from the page. For routes that answer everybody else alike."""
    kind, _, token = request.headers.get("authorization", "").partition(" ")
    if kind:
        return kind.lower() == "bearer" and role_of(settings, token.strip()) == "operator"
    return session_of(settings, request) == "operator" and _is_from_page(request)


_bearer = HTTPBearer(auto_error=False, scheme_name="token", description="The operator's token, or the read token.")
_in_address = APIKeyQuery(name="token", auto_error=False, scheme_name="read token", description="The read token.")
_Bearer = Annotated[HTTPAuthorizationCredentials | None, Security(_bearer)]


def _caller(service: TheService, request: Request, given: _Bearer) -> Caller | None:
    if given is not None:
        role = role_of(service.settings, given.credentials)
        return Caller(role, "api") if role else None
    role = session_of(service.settings, request)
    if role is None:
        return None
    if request.method not in _SAFE and not _is_from_page(request):
        raise HTTPException(403, f"a change by the session of the page needs the header {PAGE_HEADER}")
    return Caller(role, "page")


_Caller = Annotated[Caller | None, Depends(_caller)]


def operator(caller: _Caller) -> Caller:
    """Let only the operator pass. Raises HTTPException 401, or 403 for a reader."""
    if _known(caller).name != "operator":
        raise HTTPException(403, "this takes the operator's token; the one given may only read")
    return _known(caller)


def reader(caller: _Caller) -> Caller:
    """Let pass who may read. Raises HTTPException 401."""
    return _known(caller)


def subscriber(service: TheService, caller: _Caller, token: Annotated[str | None, Security(_in_address)]) -> Caller:
    """Let pass who may read, also by the read token in the address (`?token=`). Raises HTTPException 401."""
    if caller is None and token is not None and same_secret(token, read_token(service.settings)):
        return Caller("reader", "api")
    return _known(caller)


Operator = Annotated[Caller, Depends(operator)]
Reader = Annotated[Caller, Depends(reader)]
Subscriber = Annotated[Caller, Depends(subscriber)]


def _known(caller: Caller | None) -> Caller:
    if caller is None:
        raise HTTPException(401, "a bearer token is needed", {"WWW-Authenticate": "Bearer"})
    return caller


def _is_from_page(request: Request) -> bool:
    return PAGE_HEADER in request.headers and request.headers.get("Sec-Fetch-Site", "same-origin") == "same-origin"


def _is_https(settings: Settings, request: Request) -> bool:
    return request.url.scheme == "https" or (settings.gateway_url or "").startswith("https:")


def _cookie(settings: Settings) -> str:
    # Browsers send a host's cookies to all its ports: projects on one machine have one each.
    return f"proactive-{_sign(settings, 'cookie')[:8]}"


def _sign(settings: Settings, text: str) -> str:
    key = f"{operator_token(settings)}\0{read_token(settings)}".encode()
    return hmac.new(key, f"session {text}".encode("utf-8", "surrogatepass"), hashlib.sha256).hexdigest()
