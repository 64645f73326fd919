"""From where calls may come, and how many from one address."""

from __future__ import annotations

import httpx
import pytest

from tests.gateway.conftest import PROXY, Gateway
from tests.gateway.test_schemes import github


def call(gateway: Gateway, rule_id: str, said: str | None, source: str = PROXY) -> httpx.Response:
    """A call with the right secret or signature, from a source address, with that X-Forwarded-For."""
    signed = github("{}", gateway.secret(rule_id)) if rule_id.endswith("signed") else {}
    headers = {"X-Webhook-Secret": gateway.secret(rule_id), **signed, **({"X-Forwarded-For": said} if said else {})}
    if not rule_id.endswith("signed"):
        headers["Content-Type"] = "application/json"
    with httpx.Client(transport=httpx.HTTPTransport(local_address=source), timeout=90) as http:
        return http.post(f"{gateway.url}/hooks/{rule_id}", headers=headers, content=b"{}")


@pytest.mark.parametrize("rule_id", ["of-few", "of-few-signed"])
def test_a_webhook_lets_in_only_the_networks_that_it_names(rule_id: str, gateway: Gateway) -> None:
    """With the right secret, from elsewhere, and from a proxy that nobody trusts: the 401 of everybody."""
    assert call(gateway, rule_id, "192.0.2.7").status_code == 202
    usual = httpx.post(f"{gateway.url}/hooks/nobody", content=b"{}", timeout=60)
    for said, source in (
        ("198.51.100.7", PROXY), ("192.0.2.7, 198.51.100.7", PROXY), ("192.0.2.7", "127.0.0.1"), (None, PROXY),
        ("192.0.2.7, unknown", PROXY),
    ):  # fmt: skip
        answer = call(gateway, rule_id, said, source)
        assert (answer.status_code, answer.content) == (401, usual.content), said
    assert call(gateway, rule_id, "198.51.100.7, 192.0.2.8").status_code in (200, 202)


def test_each_address_has_its_own_rate(gateway: Gateway) -> None:
    """The third call of one address within the hour is told to wait; others are not."""
    answers = [call(gateway, "of-few", "192.0.2.99") for _ in range(3)]
    assert [answer.status_code for answer in answers] == [202, 202, 429]
    assert 1 <= int(answers[2].headers["retry-after"]) <= 3600
    assert call(gateway, "of-few", "2001:db8::1").status_code == 202
