"""Nothing but an untouched, timely call by somebody who knows a secret that has not ended is verified."""

from __future__ import annotations

import base64
import hashlib
import hmac
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proactive_prefect.rules.schemes import HmacOptions, Scheme
from proactive_prefect.webhooks.claims import proof_headers
from proactive_prefect.webhooks.verify import Secret, Verdict, verify

NOW = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)
AT = int(NOW.timestamp())
KEY = b"a key of thirty-two bytes, or so"
SECRET = "whsec_" + base64.b64encode(KEY).decode()
OPTIONS = HmacOptions(header="X-Sig", algorithm="sha512", encoding="base64", prefix="sha512=")

Headers = list[tuple[bytes, bytes]]
Signer = Callable[[bytes, str, int], Headers]


def mac(secret: str, message: bytes, algorithm: str = "sha256") -> bytes:
    return hmac.digest(secret.encode(), message, algorithm)


def standard(body: bytes, secret: str, at: int) -> Headers:
    """As the specification says, without its library."""
    key = base64.b64decode(secret.removeprefix("whsec_"))
    made = hmac.digest(key, b"msg_1.%d." % at + body, hashlib.sha256)
    return [
        (b"webhook-id", b"msg_1"),
        (b"webhook-timestamp", b"%d" % at),
        (b"webhook-signature", b"v1," + base64.b64encode(made)),
    ]


SIGNERS: dict[Scheme, Signer] = {
    "header": lambda body, secret, at: [(b"x-webhook-secret", secret.encode())],
    "bearer": lambda body, secret, at: [(b"authorization", b"Bearer " + secret.encode())],
    "github": lambda body, secret, at: [(b"x-hub-signature-256", b"sha256=" + mac(secret, body).hex().encode())],
    "stripe": lambda body, secret, at: [
        (b"stripe-signature", b"t=%d,v1=" % at + mac(secret, b"%d." % at + body).hex().encode())
    ],
    "slack": lambda body, secret, at: [
        (b"x-slack-request-timestamp", b"%d" % at),
        (b"x-slack-signature", b"v0=" + mac(secret, b"v0:%d:" % at + body).hex().encode()),
    ],
    "standard": standard,
    "hmac": lambda body, secret, at: [(b"x-sig", b"sha512=" + base64.b64encode(mac(secret, body, "sha512")))],
}
SIGNED: list[Scheme] = [scheme for scheme in SIGNERS if scheme not in ("header", "bearer")]
TIMED: list[Scheme] = ["stripe", "slack", "standard"]

texts = st.text(max_size=60).map(str.encode)  # Standard Webhooks signs text
schemes = st.sampled_from(list(SIGNERS))


def judge(scheme: Scheme, body: bytes, headers: Headers, *secrets: Secret, now: datetime = NOW) -> Verdict:
    return verify(scheme, body, headers, secrets or [Secret(SECRET)], now, OPTIONS)


def test_every_scheme_is_tried_here() -> None:
    """A new scheme needs its signer in this file."""
    assert set(SIGNERS) == set(get_args(Scheme))


@given(scheme=schemes, body=texts)
def test_a_call_that_is_signed_right_is_verified(scheme: Scheme, body: bytes) -> None:
    """Whatever the body says, and whatever else is in the headers."""
    headers = [(b"host", b"x"), *SIGNERS[scheme](body, SECRET, AT), (b"x-event", b"\xff")]
    assert judge(scheme, body, headers) == "verified"
    assert judge(scheme, body, [(name.title(), value) for name, value in headers]) == "verified"


@given(scheme=st.sampled_from(SIGNED), body=texts.filter(bool), data=st.data())
def test_any_flipped_bit_of_the_body_refuses(scheme: Scheme, body: bytes, data: st.DataObject) -> None:
    """The bytes that came are those that were signed."""
    headers = SIGNERS[scheme](body, SECRET, AT)
    place = data.draw(st.integers(0, len(body) * 8 - 1))
    touched = bytearray(body)
    touched[place // 8] ^= 1 << place % 8
    assert judge(scheme, bytes(touched), headers) != "verified"
    assert judge(scheme, body + b" ", headers) != "verified"
    assert judge(scheme, body[:-1], headers) != "verified"


@given(scheme=schemes, body=texts, data=st.data())
def test_any_flipped_bit_of_a_header_refuses(scheme: Scheme, body: bytes, data: st.DataObject) -> None:
    """A signature, a timestamp and a message's id hold as they are, and no other writing of them."""
    headers = SIGNERS[scheme](body, SECRET, AT)
    which = data.draw(st.integers(0, len(headers) - 1))
    name, value = headers[which]
    # "Bearer" may be written in any case (RFC 9110, 11.1).
    start = len(b"Bearer ") * 8 if scheme == "bearer" else 0
    place = data.draw(st.integers(start, len(value) * 8 - 1))
    touched = bytearray(value)
    touched[place // 8] ^= 1 << place % 8
    headers[which] = (name, bytes(touched))
    assert judge(scheme, body, headers) != "verified"


@given(scheme=schemes, body=texts, secret=st.text(max_size=40))
def test_another_secret_refuses(scheme: Scheme, body: bytes, secret: str) -> None:
    """Who signs with anything but the secret is nobody."""
    other = "whsec_" + base64.b64encode(b"other" + secret.encode("utf-8", "replace")).decode()
    assert judge(scheme, body, SIGNERS[scheme](body, other, AT)) == "mismatch"


@pytest.mark.parametrize("scheme", SIGNERS)
def test_a_header_that_is_missing_or_there_twice_refuses(scheme: Scheme) -> None:
    """Each header of a scheme has to come once: of two, somebody in front may have looked at the other."""
    headers = SIGNERS[scheme](b"{}", SECRET, AT)
    for index, (name, value) in enumerate(headers):
        assert judge(scheme, b"{}", headers[:index] + headers[index + 1 :]) == "malformed"
        for second in (value, b"", b"x"):
            assert judge(scheme, b"{}", [*headers, (name, second)]) == "malformed"
            assert judge(scheme, b"{}", [(name.upper(), second), *headers]) == "malformed"


@given(scheme=st.sampled_from(TIMED), late=st.integers(301, 10**9), early=st.booleans())
def test_a_timestamp_more_than_five_minutes_away_refuses(scheme: Scheme, late: int, early: bool) -> None:
    """A recorded call cannot be sent again later, nor one be signed for the future."""
    headers = SIGNERS[scheme](b"{}", SECRET, AT - late if not early else AT + late)
    assert judge(scheme, b"{}", headers) == "late"


@given(scheme=st.sampled_from(TIMED), skew=st.integers(-300, 300))
def test_clocks_may_differ_by_five_minutes(scheme: Scheme, skew: int) -> None:
    """Up to 300 seconds either way are taken."""
    assert judge(scheme, b"{}", SIGNERS[scheme](b"{}", SECRET, AT + skew)) == "verified"


@pytest.mark.parametrize("scheme", TIMED)
@pytest.mark.parametrize("write", ["+%d", "0%d", "%d.0", " %d ", "%d e0", "1e9", "-%d", "", "٣%d", "9" * 5000, "nan"])
def test_a_timestamp_is_written_in_one_way_only(scheme: Scheme, write: str) -> None:
    """Seconds in ASCII digits: no sign, no fraction, no leading zero, no number that is too large to be a time."""
    text = (write % AT if "%d" in write else write).encode()
    signed = b"x"
    value = mac(SECRET, text + b"." + signed).hex().encode()
    headers: dict[str, Headers] = {
        "stripe": [(b"stripe-signature", b"t=" + text + b",v1=" + value)],
        "slack": [
            (b"x-slack-request-timestamp", text),
            (b"x-slack-signature", b"v0=" + mac(SECRET, b"v0:" + text + b":" + signed).hex().encode()),
        ],
        "standard": [
            (b"webhook-id", b"msg_1"),
            (b"webhook-timestamp", text),
            (b"webhook-signature", standard(signed, SECRET, AT)[2][1]),
        ],
    }
    verdict = judge(scheme, signed, headers[scheme])
    if write == " %d " and scheme != "stripe":  # white space around a header's value is no part of it
        assert verdict in ("verified", "mismatch")
    else:
        assert verdict == "malformed"


@given(scheme=schemes, value=st.binary(max_size=200), body=st.binary(max_size=60))
def test_whatever_comes_in_the_headers_is_refused_without_an_error(scheme: Scheme, value: bytes, body: bytes) -> None:
    """Wrong encodings and bytes that are no text included."""
    headers = [(name, value) for name, _ in SIGNERS[scheme](b"", SECRET, AT)]
    assert judge(scheme, body, headers) in ("malformed", "mismatch", "late")
    prefixes = {"github": b"sha256=", "stripe": b"t=%d,v1=" % AT, "slack": b"v0=", "standard": b"v1,"}
    proof = next(iter(proof_headers(scheme, OPTIONS) - {"x-hub-signature"})).encode()
    right = dict(SIGNERS[scheme](body, SECRET, AT)) | {proof: prefixes.get(scheme, b"") + value}
    assert judge(scheme, body, list(right.items())) in ("malformed", "mismatch", "late")


@pytest.mark.parametrize("scheme", SIGNED)
def test_a_signature_in_another_encoding_or_of_no_length_refuses(scheme: Scheme) -> None:
    """Only the scheme's own writing counts; an empty, cut or longer one never does."""
    headers = SIGNERS[scheme](b"{}", SECRET, AT)
    name, value = headers[-1]
    start = max(value.rfind(mark) for mark in (b"v1=", b"v0=", b"v1,", b"sha256=", b"sha512=")) + 3
    for changed in (value[:start], value[:-1], value + b"0", value.replace(b"v", b"V").replace(b"sha", b"SHA")):
        assert judge(scheme, b"{}", [*headers[:-1], (name, changed)]) != "verified"


def test_of_several_signatures_one_has_to_be_right_and_there_is_a_bound() -> None:
    """While a sender rotates its secret it signs with both; thousands of guesses in one call are not looked at."""
    for scheme in ("stripe", "standard"):
        *front, (name, value) = SIGNERS[scheme](b"{}", SECRET, AT)
        mark, separator = (b"v1=", b",") if scheme == "stripe" else (b"v1,", b" ")
        wrong = mark + b"A" * 64
        nine = separator + separator.join([wrong] * 9)
        assert judge(scheme, b"{}", [*front, (name, value + nine)]) == "verified"
        assert judge(scheme, b"{}", [*front, (name, value + nine + separator + wrong)]) == "malformed"


def test_a_message_id_with_a_full_stop_refuses() -> None:
    """Otherwise a part of the body could be taken for the timestamp (Standard Webhooks, "Signature scheme")."""
    made = hmac.digest(KEY, b"msg.1.%d.{}" % AT, hashlib.sha256)
    headers = [
        (b"webhook-id", b"msg.1"),
        (b"webhook-timestamp", b"%d" % AT),
        (b"webhook-signature", b"v1," + base64.b64encode(made)),
    ]
    assert judge("standard", b"{}", headers) == "malformed"


@pytest.mark.parametrize("scheme", SIGNERS)
def test_an_old_secret_opens_until_its_end_beside_the_new_one(scheme: Scheme) -> None:
    """Rotation: both secrets open until the old one ends; from that instant on only the new one does."""
    old, new = SECRET, "whsec_" + base64.b64encode(KEY[::-1]).decode()
    secrets = [Secret(new), Secret(old, until=NOW)]
    just_before = NOW - timedelta(microseconds=1)
    for secret, now, verdict in (
        (new, just_before, "verified"),
        (old, just_before, "verified"),
        (new, NOW, "verified"),
        (old, NOW, "mismatch"),
    ):
        headers = SIGNERS[scheme](b"{}", secret, AT)
        assert judge(scheme, b"{}", headers, *secrets, now=now) == verdict


@pytest.mark.parametrize("scheme", SIGNERS)
@pytest.mark.parametrize("secrets", [[], [Secret("")], [Secret(SECRET, until=NOW)]])
def test_without_a_secret_that_opens_nobody_gets_in(scheme: Scheme, secrets: list[Secret]) -> None:
    """No secret, an empty one and one that has ended open nothing, not even to who sends an empty one."""
    for known in (SECRET, "whsec_"):
        headers = SIGNERS[scheme](b"{}", known, AT)
        assert verify(scheme, b"{}", headers, secrets, NOW, OPTIONS) == "no_secret"


def test_a_secret_is_not_in_its_own_representation() -> None:
    """What is logged by mistake has no secret in it."""
    assert "hunter2" not in repr(Secret("hunter2"))


def test_refusals_cost_about_the_same_whatever_is_wrong() -> None:
    """An unknown webhook, a wrong secret, a missing header and a late call all take the work of three signatures."""
    body = b"x" * 2_000_000
    other = "whsec_" + base64.b64encode(b"other").decode()
    calls: dict[str, Callable[[], Verdict]] = {
        "unknown": lambda: verify("header", body, [], [], NOW),
        "wrong token": lambda: judge("header", body, SIGNERS["header"](body, other, AT)),
        "wrong signature": lambda: judge("github", body, SIGNERS["github"](b"", other, AT)),
        "no signature": lambda: judge("github", body, []),
        "late": lambda: judge("stripe", body, SIGNERS["stripe"](b"", SECRET, AT - 999)),
        "three secrets": lambda: judge("github", body, SIGNERS["github"](b"", other, AT), *[Secret(SECRET)] * 3),
    }
    best = dict.fromkeys(calls, float("inf"))
    for _ in range(7):
        for name, call in calls.items():
            began = time.process_time()
            assert call() != "verified"
            best[name] = min(best[name], time.process_time() - began)
    assert max(best.values()) < 2 * min(best.values()), best
