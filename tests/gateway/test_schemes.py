"""One delivery of each scheme, signed by the senders' own libraries, over real HTTP to a real gateway."""

from __future__ import annotations

import base64
import hmac
import json
import socket
import time
import uuid
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from slack_sdk.signature import SignatureVerifier
from standardwebhooks import Webhook
from stripe import WebhookSignature

from proactive_prefect.prefect_api import PrefectApi
from tests.gateway.conftest import (
    BLOCK_SECRET,
    CANARY,
    ENV_SECRET,
    FILE_SECRET,
    STANDARD_SECRET,
    TOKEN,
    Gateway,
    fresh,
    settled,
)

JSON = {"Content-Type": "application/json"}


def github(body: str, secret: str, delivery: str | None = None) -> dict[str, str]:
    """The headers that GitHub sends."""
    delivery = delivery or str(uuid.uuid4())
    made = hmac.new(secret.encode(), body.encode(), "sha256").hexdigest()
    return {**JSON, "X-Hub-Signature-256": f"sha256={made}", "X-GitHub-Delivery": delivery, "X-GitHub-Event": "push"}


def stripe(body: str) -> dict[str, str]:
    """The headers that Stripe sends."""
    return {**JSON, "Stripe-Signature": WebhookSignature.generate_signature_header(body, ENV_SECRET)}


def slack(body: str) -> dict[str, str]:
    """The headers that Slack sends."""
    at = str(int(time.time()))
    made = SignatureVerifier(ENV_SECRET).generate_signature(timestamp=at, body=body)
    return {**JSON, "X-Slack-Request-Timestamp": at, "X-Slack-Signature": str(made)}


def standard(body: str, message: str = "msg_1") -> dict[str, str]:
    """The headers of Standard Webhooks."""
    now = datetime.now(UTC)
    made = Webhook(STANDARD_SECRET).sign(message, now, body)
    stamp = str(int(now.timestamp()))
    return {**JSON, "webhook-id": message, "webhook-timestamp": stamp, "webhook-signature": made}


def signed(body: str) -> dict[str, str]:
    """What the webhook of scheme hmac asks for."""
    made = base64.b64encode(hmac.digest(FILE_SECRET.encode(), body.encode(), "sha512")).decode()
    return {**JSON, "X-Sig": f"sha512={made}"}


async def payload_of(api: PrefectApi, answer: httpx.Response) -> Any:
    """The payload of the run that an answer names."""
    run = await api.get(f"/flow_runs/{(await settled(answer))['run_id']}")
    return json.loads(run["parameters"]["payload"])


@pytest.mark.parametrize("rule_id", ["github", "stripe", "slack", "standard"])
async def test_a_delivery_of_each_sender_makes_one_run_by_the_senders_own_id(
    rule_id: str, http: httpx.Client, gateway: Gateway, api: PrefectApi
) -> None:
    """202 with the sender's id; the sender's retry, signed anew and with any Idempotency-Key, gets 200 and that run."""
    delivery = fresh({"github": "gh", "stripe": "evt", "slack": "Ev", "standard": "msg"}[rule_id])
    body = json.dumps({"id": delivery, "event_id": delivery, "text": "grüße"}, ensure_ascii=False)

    def send(key: str) -> httpx.Response:
        headers = {
            "github": lambda: github(body, gateway.secret("github"), delivery),
            "stripe": lambda: stripe(body),
            "slack": lambda: slack(body),
            "standard": lambda: standard(body, delivery),
        }[rule_id]()
        return http.post(f"/hooks/{rule_id}", content=body.encode(), headers={**headers, "Idempotency-Key": key})

    first = send("one")
    assert await payload_of(api, first) == json.loads(body)
    again = send("two")
    assert (first.status_code, again.status_code) == (202, 200), (first.text, again.text)
    assert first.json().items() <= again.json().items()
    assert first.json()["delivery_id"] == delivery


async def test_a_senders_own_way_to_sign_can_be_configured(caller: httpx.AsyncClient, api: PrefectApi) -> None:
    """Header, algorithm, encoding and prefix as the rule says, the secret from a file; the signature stays outside."""
    headers = {**signed("{}"), "Idempotency-Key": fresh("mine"), "X-Event": "push"}
    answer = await caller.post("/hooks/signed", content=b"{}", headers=headers)
    assert (answer.status_code, answer.json()["delivery_id"]) == (202, headers["Idempotency-Key"])
    seen = await payload_of(api, answer)
    assert seen["x-event"] == "push"
    assert "x-sig" not in seen
    assert (await caller.post("/hooks/signed", content=b"[]", headers=headers)).status_code == 401


def test_githubs_ping_is_answered_and_makes_no_run(http: httpx.Client, gateway: Gateway) -> None:
    """A signed ping gets 200; one with a wrong signature the 401 of everybody."""
    body = '{"zen": "Design for failure.", "hook_id": 1}'
    headers = {**github(body, gateway.secret("github")), "X-GitHub-Event": "ping"}
    answer = http.post("/hooks/github", content=body, headers=headers)
    assert (answer.status_code, answer.json()) == (200, {"status": "pong"})
    assert http.post("/hooks/github", content=body + " ", headers=headers).status_code == 401


def test_slacks_challenge_is_answered_and_makes_no_run(http: httpx.Client) -> None:
    """A signed url_verification gets its challenge back; an unsigned one the 401 of everybody."""
    body = json.dumps({"type": "url_verification", "challenge": "3eZbrw1aB10FEMAGAZd4FyFQ", "token": "x"})
    answer = http.post("/hooks/slack", content=body, headers=slack(body))
    assert (answer.status_code, answer.json()) == (200, {"challenge": "3eZbrw1aB10FEMAGAZd4FyFQ"})
    assert http.post("/hooks/slack", content=body, headers=JSON).status_code == 401
    half = json.dumps({"type": "url_verification", "challenge": "\ud83d", "token": "x"})
    answer = http.post("/hooks/slack", content=half, headers=slack(half))
    assert (answer.status_code, answer.headers["content-type"]) == (422, "application/problem+json")


def test_while_a_secret_is_rotated_both_open(http: httpx.Client) -> None:
    """The new one and the old one before its end open; what has ended is not even looked for."""
    for secret in (ENV_SECRET, BLOCK_SECRET):
        answer = http.post("/hooks/rotated", content="{}", headers=github("{}", secret))
        assert answer.status_code == 202, answer.text


def test_a_secret_of_no_use_closes_the_door_and_the_operator_is_told(http: httpx.Client, gateway: Gateway) -> None:
    """The state and the log name the reference and what is wrong, never the value; callers see the usual 401."""
    assert http.post("/hooks/no-standard", content="{}", headers=standard("{}")).status_code == 401
    state = http.get("/api/v1/proactive/state", headers={"Authorization": f"Bearer {TOKEN}"}).json()
    (rule,) = [rule for rule in state["rules"] if rule["id"] == "no-standard"]
    assert rule["webhook"]["open"] is False
    assert rule["webhook"]["problem"].startswith("${env:TEST_HOOK_SECRET} is no secret of Standard Webhooks; allowed:")
    assert rule["webhook"]["calls"]["no_secret"] >= 1
    assert "door.closed webhook=no-standard: ${env:TEST_HOOK_SECRET} is no secret" in gateway.log.read_text()
    assert CANARY not in gateway.log.read_text()


def test_refusals_of_all_schemes_look_the_same(http: httpx.Client, gateway: Gateway) -> None:
    """Unknown id, wrong secret, wrong signature, late, missing header: the same 401, to the byte."""
    late = {**JSON, "Stripe-Signature": WebhookSignature.generate_signature_header("{}", ENV_SECRET, 1_700_000_000)}
    answers = [
        http.post("/hooks/nobody", content="{}", headers=JSON),
        http.post("/hooks/nobody", content="not json", headers={"Content-Encoding": "gzip", "Idempotency-Key": "a b"}),
        http.post("/hooks/plain", content="{}", headers={"X-Webhook-Secret": "wrong"}),
        http.post("/hooks/github", content="{}", headers=github("[]", gateway.secret("github"))),
        http.post("/hooks/github", content="not json", headers={"Content-Encoding": "gzip", "Idempotency-Key": "a b"}),
        http.post("/hooks/stripe", content="{}", headers=late),
        http.post("/hooks/slack", content="{}", headers=JSON),
        http.post("/hooks/standard", content=b"\xff", headers=standard("{}")),
        http.post("/hooks/signed", content="{}", headers={"X-Sig": "sha512="}),
    ]
    assert {answer.status_code for answer in answers} == {401}
    said = {(answer.content, tuple(name for name in answer.headers if name != "date")) for answer in answers}
    assert len(said) == 1


def test_a_body_that_is_held_back_tells_nobody_which_webhooks_there_are(gateway: Gateway) -> None:
    """A wrong call is not answered before its body is there, whatever the id: nothing is learned from when it is."""
    where = urlsplit(gateway.url)
    waiting = []
    for rule_id in ("nobody", "plain", "github", "no-secret"):
        line = socket.create_connection((where.hostname, where.port), timeout=60)
        line.sendall(f"POST /hooks/{rule_id} HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{{".encode())
        waiting.append(line)
    try:
        for line in waiting:
            line.settimeout(0.2)
            with pytest.raises(TimeoutError):
                line.recv(1)
        for line in waiting:
            line.settimeout(60)
            line.sendall(b"}")
            assert line.recv(65536).startswith(b"HTTP/1.1 401 ")
    finally:
        for line in waiting:
            line.close()


def test_a_signed_body_is_bound_by_the_webhooks_own_limit_and_everybodys_by_one_for_all(http: httpx.Client) -> None:
    """Who signed right is told of the webhook's limit; for everybody else it is the same for every id."""
    body = json.dumps({"id": "evt_large", "x": "y" * 2_000})
    answer = http.post("/hooks/stripe", content=body, headers=stripe(body))
    assert (answer.status_code, "2000 bytes" in answer.json()["detail"]) == (413, True)
    # Only announced: who sends on into a connection that is closed may not hear the answer.
    answers = set()
    for rule_id in ("nobody", "plain", "stripe", "slack"):
        with socket.create_connection((http.base_url.host, http.base_url.port), timeout=60) as line:
            line.sendall(f"POST /hooks/{rule_id} HTTP/1.1\r\nHost: x\r\nContent-Length: 3000000\r\n\r\n".encode())
            with line.makefile("rb") as heard:
                head, _, said = heard.read().partition(b"\r\n\r\n")
        answers.add((head.split()[1], said))
    assert {status for status, _ in answers} == {b"413"}
    assert len(answers) == 1
