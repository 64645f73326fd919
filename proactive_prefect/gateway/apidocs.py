"""`/openapi.json`, and `/docs`: the same for people. Both are for who may read, and load nothing from elsewhere."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import Any

from fastapi import Depends, FastAPI
from fastapi.responses import HTMLResponse, JSONResponse, Response
from fastapi.staticfiles import StaticFiles

from .access import reader
from .problems import Problem

_HEADERS = {
    # Swagger UI makes its markup and styles itself; its scripts are files.
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
}
_PAGE = """<!doctype html>
<html lang="en">
<title>{title}</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="icon" href="data:,">
<link rel="stylesheet" href="docs/files/swagger-ui.css">
<div id="swagger-ui"></div>
<script src="docs/files/swagger-ui-bundle.js"></script>
<script src="docs/start.js"></script>
"""
_START = """SwaggerUIBundle({
  url: "openapi.json",
  dom_id: "#swagger-ui",
  deepLinking: true,
  presets: [SwaggerUIBundle.presets.apis],
})
"""


def add_docs(app: FastAPI) -> None:
    """Add both to `app`; the document is made when it is first asked for, of all routes that there are then."""

    @app.get("/openapi.json", include_in_schema=False, dependencies=[Depends(reader)])
    async def openapi() -> JSONResponse:
        return JSONResponse(_schema(app))

    @app.get("/docs", include_in_schema=False, dependencies=[Depends(reader)])
    async def docs() -> HTMLResponse:
        return HTMLResponse(_PAGE.format(title=app.title), headers=_HEADERS)

    @app.get("/docs/start.js", include_in_schema=False)
    async def start() -> Response:
        return Response(_START, media_type="text/javascript")

    app.mount("/docs/files", StaticFiles(directory=Path(str(files("fastapi_offline"))) / "static"))


def _schema(app: FastAPI) -> dict[str, Any]:
    """FastAPI's own document, but with problems for the errors that FastAPI describes as its own."""
    schema = app.openapi()
    components = schema.setdefault("components", {}).setdefault("schemas", {})
    components["Problem"] = Problem.model_json_schema()
    components.pop("HTTPValidationError", None)
    components.pop("ValidationError", None)
    invalid = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
    for path in schema["paths"].values():
        for operation in path.values():
            if "422" in operation["responses"]:
                operation["responses"]["422"] = {"description": "Unprocessable Content", "content": invalid}
    return schema
