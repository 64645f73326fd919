"""What a call claims, by scheme: the signatures that it brings, and how the right one is made with a secret.

Each scheme is its sender's own rule:

- github: https://docs.github.com/webhooks/using-webhooks/validating-webhook-deliveries
- stripe: https://docs.stripe.com/webhooks#verify-manually
- slack: https://docs.slack.dev/authentication/verifying-requests-from-slack
- standard: https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md, `v1` of it

A header that a scheme needs has to come exactly once: of two, a proxy may have looked at the other one.
"""

from __future__ import annotations

import base64
import hmac
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal, assert_never

from standardwebhooks import Webhook

from ..rules.schemes import Algorithm, HmacOptions, Scheme

Headers = Sequence[tuple[bytes, bytes]]
"""Names and values as they came, as ASGI has them."""

TOLERANCE = 300
"""Seconds that a signed timestamp may be away from now, either way: what Stripe, Slack and Standard Webhooks advise."""

MAX_SIGNATURES = 10

_SECONDS = re.compile(rb"[1-9][0-9]{0,10}")
# Standard Webhooks forbids the full stop, which separates what is signed.
_MESSAGE_ID = re.compile(rb"[\x21-\x2d\x2f-\x7e]{1,200}")

Fault = Literal["malformed", "late"]


@dataclass(frozen=True)
class Claim:
    """What a call brings to prove who sent it. `wanted` makes, with a secret, what one of `given` has to be.

    `algorithm` is the hash of the signature that it makes for that.
    """

    given: tuple[bytes, ...]
    wanted: Callable[[str], bytes]
    algorithm: Algorithm = "sha256"


def read_claim(
    scheme: Scheme, raw: bytes, headers: Headers, now: datetime, options: HmacOptions | None
) -> Claim | Fault:
    """The claim of a call whose body is `raw`, or what is wrong with it before any secret is looked at."""
    match scheme:
        case "header" | "bearer":
            return _token(raw, shown(scheme, headers))
        case "github":
            return _prefixed(raw, _one(headers, b"x-hub-signature-256"), b"sha256=", _hex(raw))
        case "stripe":
            return _stripe(raw, _one(headers, b"stripe-signature"), now)
        case "slack":
            signature, at = _one(headers, b"x-slack-signature"), _one(headers, b"x-slack-request-timestamp")
            if at is None or not _SECONDS.fullmatch(at):
                return "malformed"
            if not _timely(at, now):
                return "late"
            return _prefixed(raw, signature, b"v0=", _hex(raw, b"v0:" + at + b":"))
        case "standard":
            return _standard(raw, headers, now)
        case "hmac":
            if options is None:
                raise ValueError("scheme hmac without its options")
            return _configured(raw, _one(headers, options.header.lower().encode()), options)
        case _:
            assert_never(scheme)


def shown(scheme: Scheme, headers: Headers) -> bytes | None:
    """The secret itself, where `scheme` has it sent: by bearer in Authorization, else in X-Webhook-Secret."""
    if scheme == "bearer":
        return _bearer(_one(headers, b"authorization"))
    return _one(headers, b"x-webhook-secret")


def no_claim(raw: bytes) -> Claim:
    """A claim that nothing fulfils, at the cost of one that somebody might."""
    return Claim((b"",), _hex(raw))


def sign(secret: str, algorithm: Algorithm, signed: bytes) -> bytes:
    """The HMAC of `signed`."""
    return hmac.digest(secret.encode(), signed, algorithm)


def proof_headers(scheme: Scheme, options: HmacOptions | None) -> frozenset[str]:
    """The lower-case names of the headers that let their owner in: not for templates, expressions or records."""
    match scheme:
        case "header":
            return frozenset({"x-webhook-secret"})
        case "bearer":
            return frozenset({"authorization"})
        case "github":
            return frozenset({"x-hub-signature-256", "x-hub-signature"})
        case "stripe":
            return frozenset({"stripe-signature"})
        case "slack":
            return frozenset({"x-slack-signature"})
        case "standard":
            return frozenset({"webhook-signature"})
        case "hmac":
            return frozenset({options.header.lower()} if options else ())
        case _:
            assert_never(scheme)


def _token(raw: bytes, given: bytes | None) -> Claim | Fault:
    def wanted(secret: str) -> bytes:
        sign(secret, "sha256", raw)  # the work of the other schemes, so that a refusal does not tell which one it was
        return secret.encode()

    return "malformed" if given is None else Claim((given,), wanted)


def _prefixed(raw: bytes, value: bytes | None, prefix: bytes, wanted: Callable[[str], bytes]) -> Claim | Fault:
    if value is None or not value.startswith(prefix):
        return "malformed"
    return Claim((value.removeprefix(prefix),), wanted)


def _configured(raw: bytes, value: bytes | None, options: HmacOptions) -> Claim | Fault:
    hexadecimal = options.encoding == "hex"

    def wanted(secret: str) -> bytes:
        made = sign(secret, options.algorithm, raw)
        return made.hex().encode() if hexadecimal else base64.b64encode(made)

    claim = _prefixed(raw, value, options.prefix.encode(), wanted)
    if isinstance(claim, str):
        return claim
    (given,) = claim.given
    # Hexadecimal digits are written either way; the schemes that have a name say lower case.
    return Claim((given.lower() if hexadecimal else given,), wanted, options.algorithm)


def _stripe(raw: bytes, value: bytes | None, now: datetime) -> Claim | Fault:
    pairs = [part.partition(b"=") for part in (value or b"").split(b",")]
    times = [text for name, _, text in pairs if name == b"t"]
    given = tuple(text for name, _, text in pairs if name == b"v1")
    if len(times) != 1 or not _SECONDS.fullmatch(times[0]) or not 1 <= len(given) <= MAX_SIGNATURES:
        return "malformed"
    if not _timely(times[0], now):
        return "late"
    return Claim(given, _hex(raw, times[0] + b"."))


def _standard(raw: bytes, headers: Headers, now: datetime) -> Claim | Fault:
    message, at = _one(headers, b"webhook-id"), _one(headers, b"webhook-timestamp")
    given = tuple(part for part in (_one(headers, b"webhook-signature") or b"").split(b" ") if part[:3] == b"v1,")
    if message is None or not _MESSAGE_ID.fullmatch(message) or at is None or not _SECONDS.fullmatch(at):
        return "malformed"
    if not 1 <= len(given) <= MAX_SIGNATURES:
        return "malformed"
    if not _timely(at, now):
        return "late"
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        return "malformed"
    # Its `verify` would ask the clock, and fail in its own ways on what is no base64; what it signs is all we need.
    moment = datetime.fromtimestamp(int(at), UTC)
    return Claim(given, lambda secret: Webhook(secret).sign(message.decode(), moment, text).encode())


def _hex(raw: bytes, before: bytes = b"") -> Callable[[str], bytes]:
    return lambda secret: sign(secret, "sha256", before + raw if before else raw).hex().encode()


def _timely(at: bytes, now: datetime) -> bool:
    return abs(now.timestamp() - int(at)) <= TOLERANCE


def _one(headers: Headers, name: bytes) -> bytes | None:
    values = [value.strip() for found, value in headers if len(found) == len(name) and found.lower() == name]
    return values[0] if len(values) == 1 else None


def _bearer(value: bytes | None) -> bytes | None:
    scheme, _, token = (value or b"").partition(b" ")
    return token.strip() if scheme.lower() == b"bearer" else None
