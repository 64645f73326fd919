"""What senders say in a verified call: the id of the delivery, and greetings, which are no deliveries."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from ..rules.schemes import Scheme

DELIVERY_ID = re.compile(r"[\x21-\x7e]{1,200}")


def delivery_id(scheme: Scheme, headers: Mapping[str, str], body: Any) -> str | None:
    """The sender's own id of a verified delivery, by which it knows a repeat; None where its scheme has none.

    GitHub and Standard Webhooks send it in a header, Stripe and Slack in the signed body. `headers` are by lower-case
    name.
    """
    match scheme:
        case "github":
            found: Any = headers.get("x-github-delivery")
        case "standard":
            found = headers.get("webhook-id")
        case "stripe":
            found = body.get("id") if isinstance(body, dict) else None
        case "slack":
            found = body.get("event_id") if isinstance(body, dict) else None
        case _:
            return None
    return found if isinstance(found, str) and DELIVERY_ID.fullmatch(found) else None


def greeting(scheme: Scheme, headers: Mapping[str, str], body: Any) -> dict[str, str] | None:
    """The answer to a verified call by which a sender only asks whether somebody is there; None for a delivery."""
    if scheme == "github" and headers.get("x-github-event") == "ping":
        return {"status": "pong"}
    if scheme == "slack" and isinstance(body, dict) and body.get("type") == "url_verification":
        challenge = body.get("challenge")
        return {"challenge": challenge} if isinstance(challenge, str) else None
    return None
