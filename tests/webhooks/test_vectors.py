"""Signatures that somebody else made: the schemes' published examples, and the senders' own libraries."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from slack_sdk.signature import Clock, SignatureVerifier
from standardwebhooks import Webhook
from stripe import WebhookSignature

from proactive_prefect.rules.schemes import HmacOptions, Scheme
from proactive_prefect.webhooks.verify import Secret, verify

NOW = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)
AT = int(NOW.timestamp())

# https://docs.slack.dev/authentication/verifying-requests-from-slack
SLACK_BODY = (
    b"token=xyzz0WbapA4vBCDEFasx0q6G&team_id=T1DC2JH3J&team_domain=testteamnow&channel_id=G8PSS9T3V"
    b"&channel_name=foobar&user_id=U2CERLKJA&user_name=roadrunner&command=%2Fwebhook-collect&text="
    b"&response_url=https%3A%2F%2Fhooks.slack.com%2Fcommands%2FT1DC2JH3J%2F397700885554%2F96rGlfmibIGlgcZRskXaIFfN"
    b"&trigger_id=398738663015.47445629121.803a0bc887a14d10d2c447fce8b6703c"
)
# https://docs.github.com/webhooks/using-webhooks/validating-webhook-deliveries
GITHUB = "757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17"
# RFC 4231 (SHA-2) and RFC 2202 (SHA-1), test case 2
JEFE = {
    "sha1": "effcdf6ae5eb2fa2d27416d5f184df9c259a7c79",
    "sha256": "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843",
    "sha384": "af45d2e376484031617f78d2b58a6b1b9c7ef464f5a01b47e42ec3736322445e8e2240ca5e69e2c78b3239ecfab21649",
    "sha512": "164b7a7bfcf819e2e395fbe73b56e0a387bd64222e831fd610270cd7ea250554"
    "9758bf75c05a994a6d034f65f8f0e6fdcaeab1a34d4a6b4b636e070a38bce737",
}


def test_githubs_published_example_is_verified() -> None:
    """The example of GitHub's documentation."""
    headers = [(b"x-hub-signature-256", f"sha256={GITHUB}".encode())]
    secret = Secret("It's a Secret to Everybody")
    assert verify("github", b"Hello, World!", headers, [secret], NOW) == "verified"
    assert verify("github", b"Hello, World?", headers, [secret], NOW) == "mismatch"


def test_slacks_published_example_is_verified() -> None:
    """The example of Slack's documentation, at its time; today it is late."""
    headers = [
        (b"x-slack-request-timestamp", b"1531420618"),
        (b"x-slack-signature", b"v0=a2114d57b48eac39b9ad189dd8316235a7b4a8d21a10bd27519666489c69b503"),
    ]
    secret = Secret("8f742231b10e8888abcd99yyyzzz85a5")
    then = datetime.fromtimestamp(1531420618, UTC)
    assert verify("slack", SLACK_BODY, headers, [secret], then) == "verified"
    assert verify("slack", SLACK_BODY, headers, [secret], NOW) == "late"


def test_the_published_example_of_standard_webhooks_is_verified() -> None:
    """The vector of the reference libraries, alone and after a signature by another key and one of another version."""
    signature = b"v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
    secret = Secret("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    then = datetime.fromtimestamp(1614265330, UTC)
    for given in (signature, b"v1,bm9wZQ== " + signature, b"v1a,bm9wZQ== " + signature):
        headers = [
            (b"webhook-id", b"msg_p5jXN8AQM9LWM0D4loKWxJek"),
            (b"webhook-timestamp", b"1614265330"),
            (b"webhook-signature", given),
        ]
        assert verify("standard", b'{"test": 2432232314}', headers, [secret], then) == "verified"


@pytest.mark.parametrize("algorithm", ["sha1", "sha256", "sha384", "sha512"])
def test_the_rfcs_test_cases_are_verified(algorithm: str) -> None:
    """The vectors of RFC 2202 and RFC 4231, in hexadecimal digits of either case and in base64, with a prefix."""
    import base64

    body, secret = b"what do ya want for nothing?", [Secret("Jefe")]
    digits = JEFE[algorithm]
    base = base64.b64encode(bytes.fromhex(digits)).decode()
    for encoding, written in (("hex", digits), ("hex", digits.upper()), ("base64", base)):
        for prefix in ("", "sha=", f"{algorithm}="):
            options = HmacOptions.model_validate(
                {"header": "X-Sig", "algorithm": algorithm, "encoding": encoding, "prefix": prefix}
            )
            headers = [(b"x-sig", (prefix + written).encode())]
            assert verify("hmac", body, headers, secret, NOW, options) == "verified"
            bare = [(b"x-sig", (prefix + written)[1:].encode())]
            assert verify("hmac", body, bare, secret, NOW, options) in ("mismatch", "malformed")


BODY = '{"id": "evt_1", "text": "grüße"}'


class Then(Clock):
    """Slack's library at the tests' time."""

    def now(self) -> float:
        return float(AT)


def test_what_stripes_library_signs_is_verified() -> None:
    """A signature by the stripe package, alone and as the second of two while Stripe rotates a secret."""
    header = WebhookSignature.generate_signature_header(BODY, "whsec_test", AT)
    at, _, signature = header.partition(",")
    other = WebhookSignature.generate_signature_header(BODY, "whsec_old", AT).partition(",")[2]
    for given in (header, f"{at},{other},{signature}", f"{at},{signature},v0={'0' * 64}"):
        headers = [(b"stripe-signature", given.encode())]
        assert verify("stripe", BODY.encode(), headers, [Secret("whsec_test")], NOW) == "verified"
        assert WebhookSignature.verify_header(BODY, given, "whsec_test")


def test_what_slacks_library_signs_is_verified() -> None:
    """A signature by slack_sdk."""
    library = SignatureVerifier("slack-secret", Then())
    signature = library.generate_signature(timestamp=str(AT), body=BODY)
    assert signature
    headers = [(b"x-slack-request-timestamp", str(AT).encode()), (b"x-slack-signature", signature.encode())]
    assert verify("slack", BODY.encode(), headers, [Secret("slack-secret")], NOW) == "verified"
    assert library.is_valid(BODY, str(AT), signature)


def test_what_the_library_of_standard_webhooks_signs_is_verified() -> None:
    """A signature by the standardwebhooks package, with the secret's prefix and without."""
    secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
    headers = [
        (b"webhook-id", b"msg_1"),
        (b"webhook-timestamp", str(AT).encode()),
        (b"webhook-signature", Webhook(secret).sign("msg_1", NOW, BODY).encode()),
    ]
    for written in (secret, secret.removeprefix("whsec_")):
        assert verify("standard", BODY.encode(), headers, [Secret(written)], NOW) == "verified"


@pytest.mark.parametrize(("scheme", "name"), [("header", b"x-webhook-secret"), ("bearer", b"authorization")])
def test_a_secret_in_a_header_is_verified(scheme: Scheme, name: bytes) -> None:
    """The secret itself, in the header of the scheme, also outside of ASCII."""
    for secret in ("hunter2", "grüße"):
        value = secret.encode() if scheme == "header" else b"Bearer " + secret.encode()
        assert verify(scheme, b"", [(name, value)], [Secret(secret)], NOW) == "verified"
        assert verify(scheme, b"", [(name, value + b"x")], [Secret(secret)], NOW) == "mismatch"
