"""`POST /hooks/{id}`, from a caller's side."""

from __future__ import annotations

import gzip
import json
import socket
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from proactive_prefect.prefect_api import PrefectApi
from tests.conftest import Server, stop
from tests.gateway.conftest import BLOCK_SECRET, ENV_SECRET, HOOKS, TOKEN, Gateway, fresh, settled, start_gateway
from tests.support import wait_until

PROBLEM = "application/problem+json"


def call(http: httpx.Client, gateway: Gateway, rule_id: str, **keys: Any) -> httpx.Response:
    """Call a webhook of scheme header with the right secret."""
    headers = {"X-Webhook-Secret": gateway.secret(rule_id), **keys.pop("headers", {})}
    return http.post(f"/hooks/{rule_id}", headers=headers, **keys)


async def payload_of(api: PrefectApi, answer: httpx.Response) -> Any:
    """What the run that an answer names gets: its parameter, or what was left for it in the inbox."""
    found = await settled(answer)
    payload = (await api.get(f"/flow_runs/{found['run_id']}"))["parameters"].get("payload")
    return payload if payload is not None else json.dumps(found["payload"])


async def test_a_call_with_the_secret_makes_a_run_with_the_body_as_its_payload(
    http: httpx.Client, gateway: Gateway, api: PrefectApi
) -> None:
    """Where it is made at once, the answer names it and where Prefect's UI shows it."""

    def named() -> dict[str, Any] | None:
        answer = call(http, gateway, "plain", json={"text": "grüße", "n": [1, 2.5, None]})
        assert answer.status_code == 202, answer.text
        return answer.json() if "flow_run_id" in answer.json() else None

    said = await wait_until(named, what="an answer that names its run")
    assert said is not None
    assert said.keys() == {"status", "delivery_id", "flow_run_id", "url"}
    assert said["status"] == "accepted"
    assert said["url"].endswith(f"/runs/flow-run/{said['flow_run_id']}")
    run = await api.get(f"/flow_runs/{said['flow_run_id']}")
    assert run["state_type"] == "SCHEDULED"
    assert isinstance(run["parameters"]["payload"], str)
    assert json.loads(run["parameters"]["payload"]) == {"text": "grüße", "n": [1, 2.5, None]}
    assert json.loads(run["parameters"]["rule"])["id"] == "plain"


@pytest.mark.parametrize(
    ("content_type", "body", "payload"),
    [
        ("application/json", b'{"a": 1}', {"a": 1}),
        ("application/vnd.github+json; charset=utf-8", b"[1]", [1]),
        ("text/plain", b'{"a": 1}', '{"a": 1}'),
        ("text/plain; charset=UTF-8", "grüße".encode(), "grüße"),
        ("application/x-www-form-urlencoded", b"a=1&b=2&b=%C3%BC&c=", {"a": "1", "b": ["2", "ü"], "c": ""}),
        ("application/x-www-form-urlencoded", b'{"a": 1}', {"a": 1}),
        (None, b'{"a": 1}', {"a": 1}),
        (None, b"hello", "hello"),
        ("text/csv", b"1," * 200_000, "1," * 200_000),
        ("application/json", b'["' + b"1," * 200_000 + b'"]', ["1," * 200_000]),
        ("application/json", b"", None),
        ("text/plain", b"a\x00b", "a\x00b"),
        ("application/json", b'{"a": "\\ud800 \\u0000"}', {"a": "\ud800 \x00"}),
    ],
)
async def test_json_text_and_forms_become_the_payload(
    content_type: str | None, body: bytes, payload: Any, http: httpx.Client, gateway: Gateway, api: PrefectApi
) -> None:
    """JSON is taken as its value, text as a string, a form as an object, nothing as null."""
    headers = {"Content-Type": content_type} if content_type else {}
    answer = call(http, gateway, "plain", content=body, headers=headers)
    assert answer.status_code == 202, answer.text
    assert json.loads(await payload_of(api, answer)) == payload


@pytest.mark.parametrize(
    ("status", "headers", "body"),
    [
        (400, {"Content-Type": "application/json"}, b"{"),
        (400, {"Content-Type": "application/json"}, b"NaN"),
        (400, {"Content-Type": "application/json"}, b"[1e999]"),
        (400, {"Content-Type": "application/json"}, b"9" * 5000),
        (400, {"Content-Type": "application/json"}, b"[" * 65 + b"]" * 65),
        (400, {"Content-Type": "application/json"}, b"[" * 100_000),
        (400, {"Content-Type": "application/json"}, b'"\xff"'),
        (400, {"Content-Type": "application/x-www-form-urlencoded"}, b"a=%ff"),
        (400, {"Idempotency-Key": "with space"}, b"{}"),
        (400, {"Idempotency-Key": "x" * 201}, b"{}"),
        (415, {"Content-Type": "image/png"}, b"x"),
        (415, {"Content-Type": "application/json; charset=latin-1"}, b"{}"),
        (415, {"Content-Type": "application/json", "Content-Encoding": "br"}, b"{}"),
        (415, {"Content-Type": "application/json", "Content-Encoding": "gzip, gzip"}, gzip.compress(b"{}")),
        (400, {"Content-Type": "application/json", "Content-Encoding": "gzip"}, b"{}"),
        (400, {"Content-Type": "application/json", "Content-Encoding": "gzip"}, gzip.compress(b"{}")[:-1]),
        (413, {"Content-Type": "application/json", "Content-Encoding": "gzip"}, gzip.compress(b" " * 90_000_000)),
        (413, {"Content-Type": "application/json", "Content-Encoding": "deflate"}, zlib.compress(b" " * 90_000_000)),
        (400, {"Content-Type": "application/json"}, b'{"a": 1, "a": 2}'),
        (400, {"Content-Type": "application/json"}, b"[" + b"1," * 100_000 + b"1]"),
        (413, {"Content-Type": "text/plain"}, b"x" * 2_000_000),
    ],
)
def test_what_cannot_be_taken_is_refused_with_the_reason(
    status: int, headers: dict[str, str], body: bytes, http: httpx.Client, gateway: Gateway
) -> None:
    """A problem document says what was wrong: not JSON, not UTF-8, too deep, too large, or of an unknown type."""
    answer = call(http, gateway, "plain", content=body, headers=headers)
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == PROBLEM
    problem = answer.json()
    assert problem.keys() == {"type", "title", "status", "detail"}
    assert problem["status"] == status
    assert problem["detail"]


def test_a_body_is_cut_off_at_the_webhooks_own_limit_with_and_without_a_length(
    http: httpx.Client, gateway: Gateway
) -> None:
    """`max_body` holds for a body with a Content-Length, and for a stream that announces nothing."""

    def stream() -> Iterator[bytes]:
        for _ in range(11):
            yield b"x" * 10

    text = {"Content-Type": "text/plain"}
    assert call(http, gateway, "small", content=b"x" * 100, headers=text).status_code == 202
    assert call(http, gateway, "small", content=b"x" * 101, headers=text).status_code == 413
    assert call(http, gateway, "small", content=stream(), headers=text).status_code == 413


def test_a_length_that_lies_gets_nobody_past_the_limit(gateway: Gateway) -> None:
    """A huge Content-Length is refused before a byte of the body came."""
    host, port = urlsplit(gateway.url).hostname, urlsplit(gateway.url).port
    head = (
        f"POST /hooks/small HTTP/1.1\r\nHost: {host}\r\nX-Webhook-Secret: {gateway.secret('small')}\r\n"
        "Content-Type: text/plain\r\nContent-Length: 99999999999999999999\r\n\r\n"
    )
    with socket.create_connection((host, port), timeout=30) as raw:
        raw.sendall(head.encode())
        answer = raw.recv(65536)
    assert answer.split(b"\r\n")[0].split()[1] in (b"413", b"400")


def test_unknown_webhook_wrong_secret_and_closed_webhook_look_the_same(http: httpx.Client, gateway: Gateway) -> None:
    """Nobody learns from a 401 whether a webhook exists, how it is verified, or that its secret is missing."""
    right = gateway.secret("plain")
    answers = [
        http.post("/hooks/nobody", headers={"X-Webhook-Secret": right}),
        http.post("/hooks/nobody"),
        http.post("/hooks/plain"),
        http.post("/hooks/plain", headers={"X-Webhook-Secret": ""}),
        http.post("/hooks/plain", headers={"X-Webhook-Secret": right + "x"}),
        http.post("/hooks/plain", headers={"X-Webhook-Secret": right.swapcase()}),
        http.post("/hooks/plain", headers=[("X-Webhook-Secret", right), ("X-Webhook-Secret", right)]),
        http.post("/hooks/plain", headers={"Authorization": f"Bearer {right}"}),
        http.post("/hooks/by-bearer", headers={"X-Webhook-Secret": ENV_SECRET}),
        http.post("/hooks/by-bearer", headers={"Authorization": f"Basic {ENV_SECRET}"}),
        http.post("/hooks/by-bearer", headers={"Authorization": "Bearer"}),
        http.post("/hooks/no-secret"),
        http.post("/hooks/no-secret", headers={"X-Webhook-Secret": ""}),
        http.post("/hooks/no-secret", headers={"X-Webhook-Secret": "None"}),
        http.post("/hooks/PLAIN", headers={"X-Webhook-Secret": right}),
        http.post("/hooks/%2e%2e%2ftoken", headers={"X-Webhook-Secret": right}),
        http.post("/hooks/plain", headers={"X-Webhook-Secret": right + "x"}, content=b"x" * 1_000_000),
    ]
    assert [answer.status_code for answer in answers[:15]] == [401] * 15
    assert answers[16].status_code == 401
    assert answers[15].status_code in (401, 404)  # a slash in the id is another path, known to nobody
    seen = {
        (answer.content, answer.headers["content-type"], answer.headers["www-authenticate"]) for answer in answers[:15]
    }
    assert len(seen) == 1


@pytest.mark.parametrize(
    ("rule_id", "header", "value"),
    [
        ("by-bearer", "Authorization", f"Bearer {ENV_SECRET}"),
        ("by-bearer", "Authorization", f"bearer {ENV_SECRET}"),
        ("by-block", "X-Webhook-Secret", BLOCK_SECRET),
    ],
)
def test_the_secret_comes_from_the_environment_or_from_a_block(
    rule_id: str, header: str, value: str, http: httpx.Client
) -> None:
    """Each webhook has its own secret, wherever it is kept, in the header that its scheme names."""
    assert http.post(f"/hooks/{rule_id}", headers={header: value}, json={}).status_code == 202


async def test_a_repeated_delivery_gets_the_first_answer_and_no_second_run(
    http: httpx.Client, gateway: Gateway, api: PrefectApi, prefect_server: Server
) -> None:
    """The same Idempotency-Key again, also at another gateway: 200, the same run, whatever the body says now."""
    key = {"Idempotency-Key": fresh("delivery")}
    first = call(http, gateway, "plain", json={"n": 1}, headers=key)
    found = await settled(first)
    again = call(http, gateway, "plain", json={"n": 2}, headers=key)
    assert (first.status_code, again.status_code) == (202, 200)
    assert first.json().items() <= again.json().items()
    assert (again.json()["delivery_id"], again.json()["flow_run_id"]) == (key["Idempotency-Key"], found["run_id"])
    other = start_gateway(prefect_server, gateway.home)
    try:
        await wait_until(other.is_ready, what="the other gateway is ready")
        secret = {"X-Webhook-Secret": gateway.secret("plain")}
        async with httpx.AsyncClient(base_url=other.url, timeout=60) as there:
            elsewhere = await there.post("/hooks/plain", json={"n": 3}, headers={**key, **secret})
    finally:
        stop(other.process)
    assert (elsewhere.status_code, elsewhere.json()) == (200, again.json())
    assert json.loads(await payload_of(api, first)) == {"n": 1}


async def test_the_same_id_at_another_webhook_is_another_delivery(
    http: httpx.Client, gateway: Gateway, api: PrefectApi
) -> None:
    """Delivery ids belong to their webhook."""
    key = {"Idempotency-Key": fresh("shared")}
    first = call(http, gateway, "plain", json={}, headers=key)
    other = call(http, gateway, "small", json={}, headers=key)
    assert (first.status_code, other.status_code) == (202, 202)
    keys = [f"webhook {rule_id} {key['Idempotency-Key']}" for rule_id in ("plain", "small")]

    async def both() -> bool:
        made = await api.post("/flow_runs/filter", {"flow_runs": {"idempotency_key": {"any_": keys}}})
        return len(made) == 2

    await wait_until(both, what="a run for each")


async def test_one_delivery_sent_many_times_at_once_is_one_run(http: httpx.Client, gateway: Gateway) -> None:
    """Twenty equal deliveries at once: one 202, nineteen 200, all with the same run."""

    key = {"Idempotency-Key": fresh("at-once")}

    def send(_: int) -> httpx.Response:
        return call(http, gateway, "plain", json={}, headers=key)

    with ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(send, range(20)))
    assert sorted(answer.status_code for answer in answers) == [200] * 19 + [202]
    found = await settled(answers[0])
    assert {answer.json().get("flow_run_id", found["run_id"]) for answer in answers} == {found["run_id"]}


async def test_when_decides_and_a_no_is_recorded(http: httpx.Client, gateway: Gateway, api: PrefectApi) -> None:
    """A delivery for which `when` is false is answered 202 as skipped, and stands in Prefect with the reason."""
    yes = call(http, gateway, "asked", json={"go": True})
    assert (yes.status_code, yes.json()["status"]) == (202, "accepted")
    key = {"Idempotency-Key": fresh("no")}
    no = call(http, gateway, "asked", json={"go": False}, headers=key)
    assert no.status_code == 202
    run = await api.get(f"/flow_runs/{(await settled(no))['run_id']}")
    assert (run["state_type"], run["state_name"]) == ("CANCELLED", "Skipped")
    assert run["state"]["message"].startswith("condition_false: ")
    again = call(http, gateway, "asked", json={"go": True}, headers=key)
    assert (again.status_code, again.json()["status"], again.json()["reason"]) == (200, "skipped", "condition_false")
    assert again.json()["flow_run_id"] == run["id"]
    unclear = await settled(call(http, gateway, "asked", json="text"))
    assert (unclear["status"], unclear["reason"].partition(":")[0]) == ("skipped", "condition_false")


async def test_the_gate_decides_before_a_run_is_made(http: httpx.Client, gateway: Gateway, api: PrefectApi) -> None:
    """A webhook that is off records its calls as skipped; one whose run is at work, too."""

    async def became(rule_id: str) -> tuple[str, str, str]:
        answer = call(http, gateway, rule_id, json={})
        assert answer.status_code == 202, answer.text
        found = await settled(answer)
        return found["status"], found["reason"].partition(":")[0], found["run_id"]

    assert (await became("off"))[:2] == ("skipped", "disabled")
    status, _, run_id = await became("one-at-a-time")
    assert status == "dispatched"
    for state in ("PENDING", "RUNNING"):
        await api.post(f"/flow_runs/{run_id}/set_state", {"state": {"type": state}, "force": True})
    assert (await became("one-at-a-time"))[:2] == ("skipped", "overlap")
    await api.post(f"/flow_runs/{run_id}/set_state", {"state": {"type": "COMPLETED"}, "force": True})
    assert (await became("one-at-a-time"))[0] == "dispatched"


async def test_a_template_shapes_the_payload(http: httpx.Client, gateway: Gateway, api: PrefectApi) -> None:
    """A template sees payload and headers, never a secret; where it fails, the caller is told."""
    answer = call(http, gateway, "shaped", json={"user": 'a"b{{ 7*7 }}'}, headers={"X-Event": "push"})
    assert answer.status_code == 202, answer.text
    assert json.loads(await payload_of(api, answer)) == {"who": 'a"b{{ 7*7 }}', "event": "push"}
    wrong = call(http, gateway, "shaped", json={"user": "x"})
    assert wrong.status_code == 422
    assert "template" in wrong.json()["detail"]


def test_a_rate_limit_answers_429_with_the_time_to_wait(http: httpx.Client, gateway: Gateway) -> None:
    """The third call within a minute is refused; calls with a wrong secret do not count."""
    for _ in range(5):
        assert http.post("/hooks/limited", headers={"X-Webhook-Secret": "wrong"}).status_code == 401
    answers = [call(http, gateway, "limited", json={}) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [202, 202, 429]
    assert 1 <= int(answers[2].headers["retry-after"]) <= 60
    assert answers[2].headers["content-type"] == PROBLEM


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "PATCH", "HEAD"])
def test_only_post_is_allowed(method: str, http: httpx.Client) -> None:
    """Every other method is answered 405, for webhooks that exist and for those that do not."""
    for rule_id in ("plain", "nobody"):
        answer = http.request(method, f"/hooks/{rule_id}")
        assert answer.status_code == 405
        assert answer.headers["allow"] == "POST"
        assert answer.headers["content-type"] == PROBLEM


def test_every_webhook_of_the_tests_is_known(gateway: Gateway) -> None:
    """Generated secrets exist as soon as the rule is known, before any call."""
    generated = {rule["id"] for rule in HOOKS if "secret" not in rule}
    assert generated <= {file.name for file in (gateway.home / "webhook-secrets").iterdir()}


@pytest.mark.parametrize("rule_id", ["plain", "asked", "bundled", "shaped", "github"])
def test_a_dry_run_of_half_a_character_is_refused_with_the_reason(rule_id: str, http: httpx.Client) -> None:
    """JSON can name half a surrogate pair, and no answer can show it: a problem document, and no failure."""
    body = json.dumps({"go": True, "repo": "\ud83d", "user": "\ude00"})
    headers = {"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json", "X-Event": "push"}
    answer = http.post(f"/hooks/{rule_id}?dry_run", content=body, headers=headers)
    assert (answer.status_code, answer.headers["content-type"]) == (422, PROBLEM), answer.text
