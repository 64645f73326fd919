"""The action `http`: one request."""

from __future__ import annotations

import contextlib

import httpx

from ...errors import ActionError
from ...rules.actions import HttpAction
from ...settings import Settings
from ..masking import Masker, clean
from ..outbound import NotAllowed, outbound
from ..references import resolve
from ..results import HeartbeatResult

KEPT = 64 * 1024  # bytes of an answer that are read; the rest is left unread
_SHOWN = 500


async def send_http(action: HttpAction, masker: Masker) -> HeartbeatResult:
    """Send the request, with `json` as its body. 2xx: the text that came back is the message, none is quiet.

    Redirects are not followed: they would carry headers, and with them secrets, to wherever the answer points. A
    redirect, a 4xx or 5xx and a broken connection raise ActionError, with the status and the beginning of what came
    back. So does an address that is not public and that the operator does not allow. At most the first 64 KiB of an
    answer are read. How long to wait is the caller's business.
    """
    url = await resolve(action.url, masker=masker, where="action.url")
    headers = await resolve(action.headers, masker=masker, where="action.headers")
    body = await resolve(action.body, masker=masker, where="action.json")
    what = f"{action.method} {action.url}"  # as written: its references stay references
    try:
        # No limit of its own: one clock, the caller's, decides what is too long.
        transport = outbound(httpx.URL(url), Settings().outbound_allow)
        async with httpx.AsyncClient(transport=transport, timeout=None, follow_redirects=False) as client:  # noqa: S113
            request = client.build_request(action.method, url, headers=headers, json=body)
            response = await client.send(request, stream=True)
            async with contextlib.aclosing(response):
                content, cut = await _read(response)
    except NotAllowed as error:
        raise ActionError(
            f"{what}: {error}", hint="PROACTIVE_OUTBOUND_ALLOW names the other networks that actions may call."
        ) from None
    except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
        said = " ".join(str(error).split())[:_SHOWN]
        raise ActionError(f"{what}: {type(error).__name__}{': ' if said else ''}{said}") from None
    text = _text(response, content, cut)
    if response.is_redirect:
        raise ActionError(
            f"{what} answered {response.status_code}, a redirect to {response.headers.get('location', '')[:_SHOWN]}",
            hint="Redirects are not followed; name the final address.",
        )
    if not response.is_success:
        shown = " ".join(masker.mask(text).split())[:_SHOWN]
        status = f"{response.status_code} {response.reason_phrase}".strip()
        raise ActionError(f"{what} answered {status}{': ' if shown else ''}{shown}")
    metadata = {"status": response.status_code, "content_type": response.headers.get("content-type", "")}
    message = text.strip()
    return HeartbeatResult(True, message, metadata) if message else HeartbeatResult(False, None, metadata)


async def _read(response: httpx.Response) -> tuple[bytes, bool]:
    """The first `KEPT` bytes, unpacked, and whether there are more."""
    content = b""
    async for chunk in response.aiter_bytes(16 * 1024):
        content += chunk
        if len(content) > KEPT:
            return content[:KEPT], True
    return content, False


def _text(response: httpx.Response, content: bytes, cut: bool) -> str:
    kind = response.headers.get("content-type", "").partition(";")[0].strip().lower()
    textual = not kind or kind.startswith("text/") or kind.endswith(("json", "xml", "javascript", "urlencoded"))
    if content and not textual:
        return f"{'more than ' if cut else ''}{len(content):,} bytes of {kind}"
    try:
        text = clean(content.decode(response.charset_encoding or "utf-8", "replace"))
    except LookupError:  # no such encoding, or none for text: the answer's header is a stranger's word
        text = clean(content.decode("utf-8", "replace"))
    return f"{text}\n… (the first {KEPT // 1024} KiB)" if cut else text
