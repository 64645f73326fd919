"""What senders say in a verified call, read without trust in its form."""

from __future__ import annotations

from typing import Any

import pytest

from proactive_prefect.rules.schemes import Scheme
from proactive_prefect.webhooks.senders import delivery_id, greeting


@pytest.mark.parametrize(
    ("scheme", "headers", "body", "found"),
    [
        ("github", {"x-github-delivery": "72d3"}, {"id": "no"}, "72d3"),
        ("github", {"x-github-delivery": "with space"}, {}, None),
        ("standard", {"webhook-id": "msg_1"}, {}, "msg_1"),
        ("stripe", {}, {"id": "evt_1"}, "evt_1"),
        ("stripe", {}, {"id": 7}, None),
        ("stripe", {}, {"id": "x" * 201}, None),
        ("stripe", {}, ["id"], None),
        ("slack", {}, {"event_id": "Ev1"}, "Ev1"),
        ("slack", {}, None, None),
        ("header", {"webhook-id": "msg_1", "x-github-delivery": "72d3"}, {"id": "evt_1"}, None),
        ("hmac", {"webhook-id": "msg_1"}, {"id": "evt_1"}, None),
    ],
)
def test_the_senders_own_id_is_found(scheme: Scheme, headers: dict[str, str], body: Any, found: str | None) -> None:
    """In the header or the body where the scheme has it, and only if it is an id."""
    assert delivery_id(scheme, headers, body) == found


@pytest.mark.parametrize(
    ("scheme", "headers", "body", "answer"),
    [
        ("github", {"x-github-event": "ping"}, {}, {"status": "pong"}),
        ("github", {"x-github-event": "push"}, {}, None),
        ("slack", {}, {"type": "url_verification", "challenge": "c"}, {"challenge": "c"}),
        ("slack", {}, {"type": "url_verification", "challenge": {"a": 1}}, None),
        ("slack", {}, {"type": "event_callback", "challenge": "c"}, None),
        ("header", {"x-github-event": "ping"}, {"type": "url_verification", "challenge": "c"}, None),
    ],
)
def test_greetings_are_told_from_deliveries(
    scheme: Scheme, headers: dict[str, str], body: Any, answer: dict[str, str] | None
) -> None:
    """GitHub's ping and Slack's challenge, and only by their own schemes."""
    assert greeting(scheme, headers, body) == answer
