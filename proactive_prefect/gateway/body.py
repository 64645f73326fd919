"""The body of a webhook call: read within its bounds, and turned into the payload of a run.

A payload is one JSON *text*, and travels to the run as a string: nothing in it can be taken for one of Prefect's
templates or references.
"""

from __future__ import annotations

import asyncio
import json
import math
import re
import zlib
from collections.abc import Callable, Iterable
from typing import Any
from urllib.parse import parse_qsl

from fastapi import HTTPException, Request
from jinja2.runtime import StrictUndefined
from jinja2.sandbox import ImmutableSandboxedEnvironment

# As large as a body may be. What is too large for Prefect's parameters stays in the inbox, where the run fetches it.
MAX_PAYLOAD = 64 * 1024 * 1024
MAX_DEPTH = 64
MAX_VALUES = 100_000
"""In one JSON body: each costs this process some twenty times what it cost its sender."""
READ_SECONDS = 30.0

_TEMPLATES = ImmutableSandboxedEnvironment(undefined=StrictUndefined, autoescape=False)
_CLOSE = {"Connection": "close"}
_WINDOWS = {"gzip": 31, "x-gzip": 31, "deflate": 15}
# Up to the end of the text where a string has none, so that no text is read more than once.
_STRING = re.compile(r'"(?:[^"\\]|\\.?)*+(?:"|\Z)', re.DOTALL)


async def read_body(request: Request, limit: int, hold: Callable[[int], None] = lambda _: None) -> bytes:
    """The raw body, of at most `limit` bytes, whatever Content-Length says. Once a request.

    `hold` is told of each piece's length as it comes, and may raise to break off.
    Raises HTTPException: 413 as soon as it is too large, 408 if it takes too long, 400 if the caller breaks off.
    """
    announced = request.headers.get("content-length", "")
    if announced.isdecimal() and int(announced[:20]) > limit:
        raise _too_large(limit)
    body = bytearray()
    try:
        async with asyncio.timeout(READ_SECONDS):
            more = True
            while more:
                message = await request.receive()
                if message["type"] == "http.disconnect":
                    raise HTTPException(400, "the body is shorter than its Content-Length")
                chunk = message.get("body", b"")
                hold(len(chunk))
                body += chunk
                if len(body) > limit:
                    raise _too_large(limit)
                more = message.get("more_body", False)
    except TimeoutError:
        raise HTTPException(408, f"the body did not arrive within {READ_SECONDS:g} seconds", _CLOSE) from None
    return bytes(body)


def _too_large(limit: int) -> HTTPException:
    return HTTPException(413, f"the body is larger than the {limit} bytes that this webhook takes", _CLOSE)


def parse_body(raw: bytes, content_type: str, encoding: str, limit: int) -> Any:
    """What the body says: JSON as its value, text as a string, a form as an object, an empty body as None.

    Form bodies that are JSON are taken as such: it is what `curl -d` sends without a content type. A packed body has
    at most `limit` bytes when it is unpacked.
    Raises HTTPException: 415 for a type, charset or encoding that is not known, 413 for what is too large unpacked, 400
    for what cannot be read, or can be read in two ways, as JSON with a key that comes twice.
    """
    raw = _unpack(raw, encoding.strip().lower(), limit)
    kind, _, parameters = content_type.partition(";")
    kind = kind.strip().lower()
    name, _, charset = parameters.strip().lower().partition("=")
    if name.strip() == "charset" and charset.strip(' "') not in ("utf-8", "utf8", "us-ascii"):
        raise HTTPException(415, "the charset is not known; allowed: utf-8")
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise HTTPException(400, f"the body is not UTF-8 (at byte {error.start})") from None
    if not text.strip():
        return None
    if kind == "application/json" or kind.endswith("+json"):
        return _json(text)
    if kind in ("", "application/x-www-form-urlencoded"):
        try:
            return _json(text)
        except HTTPException:
            return _form(text) if kind else text
    if kind.startswith("text/"):
        return text
    raise HTTPException(415, "the content type is not known; allowed: JSON, text and application/x-www-form-urlencoded")


def shape_payload(body: Any, headers: dict[str, str], template: str | None) -> str:
    """The payload: `body` as JSON, or what `template` makes of it: as it is where that is JSON, else as a JSON string.

    A template sees `payload` (the body) and `headers` (by lower-case name), as a rule's `when` does.
    Raises HTTPException: 422 if the template fails, 413 if the payload is too large for the inbox.
    """
    value = body
    if template is not None:
        try:
            made = _TEMPLATES.from_string(template).render(payload=body, headers=headers)
        except Exception as error:  # a template may fail in any way
            raise HTTPException(422, f"this webhook's template fails: {type(error).__name__}: {error}"[:500]) from None
        try:
            value = _json(made)
        except HTTPException:
            value = made
    payload = _ENCODER.encode(value)
    if len(payload) > MAX_PAYLOAD:
        raise HTTPException(413, f"the payload is larger than the {MAX_PAYLOAD} bytes that the inbox takes")
    return payload


def _unpack(raw: bytes, encoding: str, limit: int) -> bytes:
    if encoding in ("", "identity"):
        return raw
    if encoding not in _WINDOWS:
        raise HTTPException(415, "the content encoding is not known; allowed: gzip, deflate, or none")
    reader = zlib.decompressobj(_WINDOWS[encoding])
    try:
        unpacked = reader.decompress(raw, limit + 1)
    except zlib.error:
        raise HTTPException(400, f"the body is not {encoding}") from None
    if len(unpacked) > limit:
        raise HTTPException(413, f"unpacked, the body is larger than the {limit} bytes that this webhook takes")
    if not reader.eof or reader.unused_data:
        raise HTTPException(400, f"the body is not one whole {encoding}")
    return unpacked


def _json(text: str) -> Any:
    if _values(text) > MAX_VALUES and _values(_STRING.sub("", text)) > MAX_VALUES:
        raise HTTPException(400, f"the body has more than {MAX_VALUES} values")
    try:
        value = _DECODER.decode(text)
    except (ValueError, RecursionError) as error:
        said = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise HTTPException(400, f"the body is not JSON: {said}") from None
    # What this process can just read, the run's might not: its stack may be deeper.
    level, depth = [value], 0
    while level := [child for one in level for child in _children(one)]:
        depth += 1
        if depth == MAX_DEPTH:
            raise HTTPException(400, f"the body is nested more than {MAX_DEPTH} deep")
    return value


def _children(value: Any) -> Iterable[Any]:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list) else ()


def _values(text: str) -> int:
    """At least as many as there are values in it."""
    return text.count(",") + text.count("[") + text.count("{")


def _no_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        raise ValueError("a key comes twice in one object")
    return made


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not in JSON")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"a number is too large: {text[:40]}")
    return number


# Made once: to make one takes longer than to read a small body.
_DECODER = json.JSONDecoder(parse_constant=_no_constant, parse_float=_finite, object_pairs_hook=_no_twins)
_ENCODER = json.JSONEncoder(separators=(",", ":"))


def _form(text: str) -> dict[str, str | list[str]]:
    fields: dict[str, list[str]] = {}
    try:
        for name, value in parse_qsl(text, keep_blank_values=True, errors="strict", max_num_fields=1000):
            fields.setdefault(name, []).append(value)
    except ValueError as error:
        raise HTTPException(400, f"the body is not a form: {error}") from None
    return {name: values[0] if len(values) == 1 else values for name, values in fields.items()}
