"""Fuzz what reads strangers' bytes: `python -m tests.security.fuzz TARGET [libFuzzer's options]`, or `all`.

Each target takes any bytes and lets nothing out but the errors that its caller expects. Needs atheris.
"""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
import tempfile
import zlib
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["proactive_prefect", "standardwebhooks", "json", "urllib.parse", "ipaddress"]):
    from fastapi import HTTPException
    from starlette.requests import Request

    from proactive_prefect.errors import ConfigError
    from proactive_prefect.gateway.body import parse_body, shape_payload
    from proactive_prefect.gateway.origin import origin
    from proactive_prefect.networks import is_public, read_address, read_network
    from proactive_prefect.rules.schemes import HmacOptions, Scheme
    from proactive_prefect.rules.source import parse_source
    from proactive_prefect.settings import Settings
    from proactive_prefect.webhooks.senders import delivery_id, greeting
    from proactive_prefect.webhooks.verify import Secret, verify

ROOT = Path(__file__).parents[2]
NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
SCHEMES: tuple[Scheme, ...] = ("header", "bearer", "github", "stripe", "slack", "standard", "hmac")
SECRET = "whsec_" + "QUJD" * 8
OPTIONS = (
    HmacOptions(header="X-Sig"),
    HmacOptions(header="X-Sig", algorithm="sha512", encoding="base64", prefix="sha512="),
)
TYPES = ("application/json", "application/x-www-form-urlencoded", "", "text/plain", "application/json; charset=utf-8")
ENCODINGS = ("", "gzip", "deflate")
BEHIND = [
    Settings.model_validate({"trusted_proxies": (read_network("10.0.0.0/8"),), "proxy_header": header})
    for header in ("x-forwarded-for", "forwarded")
]


def claims(data: bytes) -> None:
    """No headers and no body let in somebody who does not know the secret, and none breaks the verification."""
    head, _, body = data[1:].partition(b"\n\n")
    lines = [line.partition(b": ") for line in head.split(b"\n")]
    headers = [(name, value) for name, _, value in lines]
    scheme = SCHEMES[(data or b"\0")[0] % len(SCHEMES)]
    options = OPTIONS[len(body) % 2] if scheme == "hmac" else None
    verdict = verify(scheme, body, headers, [Secret(SECRET)], NOW, options)
    assert verdict != "verified" or any(SECRET.encode() in value for _, value in headers), (scheme, headers)


def body(data: bytes) -> None:
    """A body is read, or refused with a status; what was read is JSON again."""
    first, raw = (data or b"\0")[0], data[1:]
    try:
        value = parse_body(raw, TYPES[first % len(TYPES)], ENCODINGS[first // len(TYPES) % len(ENCODINGS)], 100_000)
        payload = shape_payload(value, {}, None)
    except HTTPException as refused:
        if refused.status_code not in (400, 413, 415):
            raise
        return
    assert json.loads(payload) == value
    for scheme in SCHEMES:
        delivery_id(scheme, {}, value)
        greeting(scheme, {"x-github-event": "push"}, value)


def hops(data: bytes) -> None:
    """Whatever callers say, the address that the trusted proxy put behind it is theirs."""
    said = data.replace(b"\r", b"").replace(b"\n", b"")
    for settings, own in zip(BEHIND, (b"203.0.113.7", b"for=203.0.113.7"), strict=True):
        name = settings.proxy_header.encode()
        for lines in ([said], [said, own], [said + b", " + own]):
            scope = {"type": "http", "client": ("10.0.0.1", 1), "headers": [(name, line) for line in lines]}
            found = origin(Request(scope), settings)
            assert lines == [said] or str(found) == "203.0.113.7", found


def networks(data: bytes) -> None:
    """An address or a network is read, or it is none."""
    text = data.decode("utf-8", "replace")
    if (address := read_address(text)) is not None:
        is_public(address)
    try:
        read_network(text)
    except ValueError as error:
        if "allowed" not in str(error):
            raise


def rules(data: bytes) -> None:
    """A rules file in any of its languages is read, or its mistakes are told."""
    for suffix in (".toml", ".yaml", ".json"):
        try:
            parse_source(data.decode("utf-8", "replace"), suffix, f"rules{suffix}")
        except ConfigError as error:
            if not error.mistakes:
                raise


TARGETS: dict[str, Callable[[bytes], None]] = {
    target.__name__: target for target in (claims, body, hops, networks, rules)
}
SEEDS: dict[str, list[bytes]] = {
    "claims": [
        b"\x00x-webhook-secret: " + SECRET.encode() + b"\n\n{}",
        b"\x01authorization: Bearer x\n\n{}",
        b"\x02x-hub-signature-256: sha256=" + b"0" * 64 + b"\n\n{}",
        b"\x03stripe-signature: t=1767323045,v1=" + b"0" * 64 + b",v0=1\n\n{}",
        b"\x04x-slack-signature: v0=" + b"0" * 64 + b"\nx-slack-request-timestamp: 1767323045\n\n{}",
        b"\x05webhook-id: msg_1\nwebhook-timestamp: 1767323045\nwebhook-signature: v1,MDAw v1a,x\n\n{}",
        b"\x06x-sig: sha512=" + b"0" * 64 + b"\n\n{}",
    ],
    "body": [
        b'\x00{"a": [1, -2.5e3, null, true, "\\u00fc"]}',
        b"\x01a=1&b=%C3%BC&a=",
        b"\x02hello",
        b"\x03hello",
        b"\x05\x1f\x8b\x08" + gzip.compress(b"{}", mtime=0)[3:],
        b"\x0a" + zlib.compress(b"{}"),
    ],
    "hops": [b"1.2.3.4", b"1.2.3.4:5, [::1]:6", b'for=1.2.3.4;by=x, for="[::1]:6"', b"10.0.0.1, unknown"],
    "networks": [b"10.0.0.0/8", b"::ffff:1.2.3.4", b"64:ff9b::1/96", b"fe80::1%eth0"],
    "rules": [
        (ROOT / "deployments/proactive.toml").read_bytes(),
        b'[[heartbeat]]\nid = "a"\nevery = "5m"\n',
        b"heartbeat:\n  - &a {id: x, every: 5m}\n  - *a\n",
        b'{"cron": [{"id": "a", "cron": "* * * * *"}]}',
    ],
}


def main(words: list[str]) -> int:
    """Fuzz one target until libFuzzer's options end it, or all of them, one after another."""
    name, *options = words
    if name == "all":
        return max(
            subprocess.run([sys.executable, "-m", "tests.security.fuzz", target, *options]).returncode
            for target in TARGETS
        )
    with tempfile.TemporaryDirectory() as corpus:
        for number, seed in enumerate(SEEDS[name]):
            (Path(corpus) / str(number)).write_bytes(seed)
        atheris.Setup([name, *options, corpus], TARGETS[name])
        atheris.Fuzz()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
