"""What real senders send, signed by their own libraries, byte for byte.

`payloads/github_events.json` has examples of GitHub's (@octokit/webhooks-examples 7.6.1, MIT), each as
@octokit/webhooks-methods 6.0.0 signed it.
"""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import standardwebhooks
import stripe
import svix

from proactive_prefect.gateway.body import parse_body, shape_payload
from proactive_prefect.webhooks.senders import delivery_id, greeting
from proactive_prefect.webhooks.verify import Secret, verify

GITHUB: list[dict[str, str]] = json.loads((Path(__file__).parent / "payloads/github_events.json").read_text())
GITHUB_SECRET = "It's a Secret to Everybody"
KEY = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


def now() -> datetime:
    """The libraries sign for the moment at which they are called."""
    return datetime.now(UTC)


# https://docs.stripe.com/api/events/object and /payment_intents/object
STRIPE = json.dumps(
    {
        "id": "evt_3MtwBwLkdIwHu7ix28a3tqPa", "object": "event", "api_version": "2023-10-16", "created": 1680064028,
        "data": {
            "object": {
                "id": "pi_3MtwBwLkdIwHu7ix28a3tqPa", "object": "payment_intent", "amount": 2000, "currency": "usd",
                "automatic_payment_methods": {"enabled": True}, "created": 1680800504, "livemode": False,
                "metadata": {"note": "grüße – ½ €"}, "payment_method_types": ["card", "link"], "status": "succeeded",
            }
        },
        "livemode": False, "pending_webhooks": 1, "request": {"id": None, "idempotency_key": "x"},
        "type": "payment_intent.succeeded",
    },
    indent=2, ensure_ascii=False,
)  # fmt: skip


def headers(given: dict[str, str]) -> list[tuple[bytes, bytes]]:
    """As they come."""
    return [(name.encode(), value.encode()) for name, value in given.items()]


@pytest.mark.parametrize("event", GITHUB, ids=lambda event: event["event"])
def test_githubs_own_examples_are_verified_and_read(event: dict[str, str]) -> None:
    """Signed by GitHub's library: verified, with the delivery's id, and read as they were; one byte more is not."""
    raw = event["body"].encode()
    signed = headers({"X-Hub-Signature-256": event["signature"]})
    assert verify("github", raw, signed, [Secret("old"), Secret(GITHUB_SECRET)], now()) == "verified"
    assert verify("github", raw + b" ", signed, [Secret(GITHUB_SECRET)], now()) == "mismatch"
    body = parse_body(raw, "application/json", "", 1_048_576)
    assert json.loads(shape_payload(body, {}, None)) == json.loads(event["body"])
    said = {"x-github-event": event["event"], "x-github-delivery": "72d3162e-cc78-11e3-81ab-4c9367dc0958"}
    assert delivery_id("github", said, body) == "72d3162e-cc78-11e3-81ab-4c9367dc0958"
    assert greeting("github", said, body) == ({"status": "pong"} if event["event"] == "ping" else None)


def test_a_stripe_event_is_what_stripes_own_library_takes() -> None:
    """The same bytes and header are an event for Stripe's library and a verified delivery here, by the event's id."""
    header = stripe.WebhookSignature.generate_signature_header(STRIPE, KEY)
    event = stripe.Webhook.construct_event(STRIPE.encode(), header, KEY)  # type: ignore[no-untyped-call]
    assert verify("stripe", STRIPE.encode(), headers({"Stripe-Signature": header}), [Secret(KEY)], now()) == "verified"
    body = parse_body(STRIPE.encode(), "application/json; charset=utf-8", "", 1_048_576)
    assert delivery_id("stripe", {}, body) == event.id
    late = stripe.WebhookSignature.generate_signature_header(STRIPE, KEY, int(time.time()) - 600)
    assert verify("stripe", STRIPE.encode(), headers({"Stripe-Signature": late}), [Secret(KEY)], now()) == "late"
    with pytest.raises(stripe.SignatureVerificationError):
        stripe.Webhook.construct_event(STRIPE.encode(), late, KEY)  # type: ignore[no-untyped-call]


@pytest.mark.parametrize("library", [svix.Webhook, standardwebhooks.Webhook], ids=["svix", "standardwebhooks"])
@pytest.mark.parametrize(("skew", "verdict"), [(0, "verified"), (-290, "verified"), (-310, "late"), (310, "late")])
def test_svix_and_the_reference_library_are_agreed_with(library: Any, skew: int, verdict: str) -> None:
    """Both sign; what they take is verified, and what they refuse for its time is late here, too."""
    body = json.dumps({"type": "invoice.paid", "data": {"id": "ü"}}, ensure_ascii=False)
    at = datetime.now(UTC) + timedelta(seconds=skew)
    signed = library(KEY).sign("msg_2KWPBgLlAfxdpx2AI54pPJ85f4W", at, body)
    brought = {
        "webhook-id": "msg_2KWPBgLlAfxdpx2AI54pPJ85f4W",
        "webhook-timestamp": str(int(at.timestamp())),
        "webhook-signature": signed,
    }
    assert verify("standard", body.encode(), headers(brought), [Secret(KEY)], datetime.now(UTC)) == verdict
    if verdict == "verified":
        library(KEY).verify(body, brought)
    else:
        with pytest.raises((svix.WebhookVerificationError, standardwebhooks.WebhookVerificationError)):
            library(KEY).verify(body, brought)
