"""Errors as RFC 9457 problem documents, whoever raised them; nothing of the inside is in them."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException

from ..errors import InputError, PrefectError, PrefectUnreachable, ProactiveError, UnknownRule

MEDIA_TYPE = "application/problem+json"
RETRY_AFTER = 5  # seconds that a caller is asked to wait while Prefect is away


class Problem(BaseModel):
    """An error, as RFC 9457 has it."""

    type: str = Field(default="about:blank", description="The status says all that there is to say about the type.")
    title: str = Field(description="The name of the status.", examples=["Unauthorized"])
    status: int = Field(description="The HTTP status.", examples=[401])
    detail: str = Field(description="What was wrong, in a sentence.")


def problem(status: int, detail: str, headers: dict[str, str] | None = None) -> JSONResponse:
    """The answer for an error."""
    sayable = detail.encode("utf-8", "replace").decode()  # a caller's text may hold half a character
    document = {"type": "about:blank", "title": HTTPStatus(status).phrase, "status": status, "detail": sayable}
    return JSONResponse(document, status, headers, MEDIA_TYPE)


def as_problem(error: HTTPException | ProactiveError) -> JSONResponse:
    """The answer for an error that was raised on purpose."""
    match error:
        case HTTPException():
            return problem(error.status_code, str(error.detail), dict(error.headers or {}))
        case UnknownRule():
            return problem(404, error.message)
        case InputError():
            return problem(400, error.message)
        case PrefectUnreachable():
            return problem(503, "Prefect does not answer", {"Retry-After": str(RETRY_AFTER)})
        case PrefectError():
            return problem(502, "Prefect refused the request; the gateway's log has its answer")
        case _:
            return problem(500, "the gateway failed; its log says how")


def documented(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The `responses=` of a route that answers with problems of these statuses, for OpenAPI."""
    schema = {"schema": {"$ref": "#/components/schemas/Problem"}}
    return {status: {"description": HTTPStatus(status).phrase, "content": {MEDIA_TYPE: schema}} for status in statuses}


def answer_with_problems(app: FastAPI) -> None:
    """Make every error of `app` a problem document: ours, FastAPI's, 404, 405 and what nobody foresaw."""

    @app.exception_handler(HTTPException)
    @app.exception_handler(ProactiveError)
    async def _known(_: Request, error: HTTPException | ProactiveError) -> JSONResponse:
        return as_problem(error)

    @app.exception_handler(RequestValidationError)
    async def _invalid(_: Request, error: RequestValidationError) -> JSONResponse:
        # Where and why, but not what was sent: it may be a secret in the wrong place.
        said = "; ".join(f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors())
        return problem(422, said)

    @app.exception_handler(Exception)
    async def _unforeseen(_: Request, __: Exception) -> JSONResponse:
        return problem(500, "the gateway failed; its log says how")
