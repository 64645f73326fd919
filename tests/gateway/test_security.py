"""What a caller sends is data, and what is secret stays so."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import quote

import httpx
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from prefect.variables import Variable

from proactive_prefect.prefect_api import PrefectApi
from tests.gateway.conftest import BLOCK_SECRET, CANARY, ENV_SECRET, TOKEN, Gateway, keep_secret, settled

LEAK = "leak-5b0f6c1e"


async def test_prefects_own_templates_in_a_body_stay_text(
    caller: httpx.AsyncClient, gateway: Gateway, api: PrefectApi
) -> None:
    """Neither a variable, nor a block's secret, nor a template gets into the run's parameters from a body."""
    await Variable.aset("leak_test", LEAK, overwrite=True)
    await keep_secret("leak-test", LEAK)
    block = await api.get("/block_types/slug/secret/block_documents/name/leak-test")
    bodies: list[Any] = [
        {"__prefect_kind": "workspace_variable", "variable_name": "leak_test"},
        {"__prefect_kind": "jinja", "template": "{{ 7 * 7 }}"},
        {"__prefect_kind": "json", "value": '"x"'},
        {"$ref": block["id"]},
        {"$ref": {"block_document_id": block["id"]}},
        {"rule": {"__prefect_kind": "workspace_variable", "variable_name": "leak_test"}},
        "{{ prefect.variables.leak_test }} {{ prefect.blocks.secret.leak-test }} ${env:HOME} ${secret:leak-test}",
    ]
    for body in bodies:
        headers = {"X-Webhook-Secret": gateway.secret("plain")}
        answer = await caller.post("/hooks/plain", headers=headers, json=body)
        assert answer.status_code == 202, answer.text
        run = await api.get(f"/flow_runs/{(await settled(answer))['run_id']}")
        assert json.loads(run["parameters"]["payload"]) == body
        assert json.loads(run["parameters"]["rule"])["id"] == "plain"
        assert LEAK not in json.dumps(run)


async def test_no_secret_leaves_the_gateway(caller: httpx.AsyncClient, gateway: Gateway, api: PrefectApi) -> None:
    """After calls of all kinds no log, answer, state, document, parameter or error holds any of the secrets."""
    generated = gateway.secret("plain")
    heard: list[str] = []

    def listen(answer: httpx.Response) -> None:
        heard.append(answer.text + str(answer.headers))

    operator = {"Authorization": f"Bearer {TOKEN}"}
    for headers in (
        {"X-Webhook-Secret": generated},
        {"X-Webhook-Secret": BLOCK_SECRET},
        {"X-Webhook-Secret": ENV_SECRET},
    ):
        for rule_id in ("plain", "by-block", "no-secret", "shaped", "nobody"):
            for body in ({"user": "u"}, {}, 7):
                listen(await caller.post(f"/hooks/{rule_id}", headers=headers, json=body))
    listen(await caller.post("/hooks/by-bearer", headers={"Authorization": f"Bearer {ENV_SECRET}"}, json={}))
    for path in ("/api/v1/proactive/state", "/openapi.json", "/docs", "/readyz", "/nowhere"):
        listen(await caller.get(path, headers=operator))
    runs = await api.post("/flow_runs/filter", {"sort": "START_TIME_DESC", "limit": 200})
    log = gateway.log.read_text()
    assert "delivery.accepted" in log
    for place in (*heard, log, json.dumps(runs)):
        assert CANARY not in place
        assert generated not in place


texts = st.text(max_size=40)


def without_ends(raw: bytes) -> bytes:
    """A header's value: whatever it is, it has no end of line in it."""
    return raw.replace(b"\r", b"").replace(b"\n", b"").replace(b"\0", b"").strip()


headers = st.dictionaries(
    st.sampled_from(
        [
            "Content-Type", "Content-Encoding", "Idempotency-Key", "Authorization", "Cookie", "Transfer-Encoding",
            "X-Forwarded-For", "Expect", "X-Event",
        ]
    ),
    st.one_of(
        st.sampled_from(["application/json", "text/plain", "gzip", "chunked", "Bearer x"]),
        st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=60).map(str.strip),
        st.binary(max_size=20).map(lambda raw: without_ends(raw)),
    ),
    max_size=4,
)  # fmt: skip
bodies = st.one_of(
    st.binary(max_size=300),
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | texts,
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
        max_leaves=20,
    ).map(lambda value: json.dumps(value).encode()),
)


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(extra=headers, body=bodies)
def test_no_call_breaks_the_gateway(
    extra: dict[str, str | bytes], body: bytes, http: httpx.Client, gateway: Gateway
) -> None:
    """Whatever headers and body come with the right secret, the answer is a run or a problem document, never a 5xx."""
    given_headers = {"X-Webhook-Secret": gateway.secret("plain"), **extra}
    try:
        answer = http.post("/hooks/plain", headers=given_headers, content=body)  # type: ignore[arg-type]
    except (httpx.RemoteProtocolError, httpx.LocalProtocolError):
        return  # not HTTP at all: the connection was cut, or the client would not send it
    assert answer.status_code < 500, answer.text
    if answer.status_code in (200, 202):
        assert answer.json()["delivery_id"]
    elif answer.headers["content-type"] == "application/problem+json":
        assert answer.json()["status"] == answer.status_code
    else:
        assert (answer.status_code, answer.text) == (400, "Invalid HTTP request received.")


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    rule_id=st.sampled_from(["plain", "by-bearer", "by-block", "no-secret", "off", "nobody"]) | texts,
    secret=st.one_of(st.sampled_from(["", "null", "None", "undefined", "true", "*", "%"]), st.binary(max_size=60)),
    bearer=st.booleans(),
    body=bodies,
)
def test_nothing_but_the_secret_opens_a_door(
    rule_id: str, secret: str | bytes, bearer: bool, body: bytes, http: httpx.Client
) -> None:
    """No other value in either header, with whatever id and body, is answered with anything but a refusal."""
    value = without_ends(secret.encode() if isinstance(secret, str) else secret)
    name, given_value = (b"Authorization", b"Bearer " + value) if bearer else (b"X-Webhook-Secret", value)
    url = f"/hooks/{quote(rule_id, safe='')}"
    try:
        answer = http.post(url, headers=[(name, given_value)], content=body)
    except (httpx.RemoteProtocolError, httpx.LocalProtocolError, httpx.InvalidURL):
        return
    assert answer.status_code in (400, 401, 404, 405), answer.text
    assert "flow_run_id" not in answer.text


async def test_a_refused_call_makes_no_run(caller: httpx.AsyncClient, gateway: Gateway, api: PrefectApi) -> None:
    """However many calls with wrong secrets came, Prefect has not one run more."""

    async def count() -> int:
        return int(await api.post("/flow_runs/count", {}))

    before = await count()
    for rule_id in ("plain", "by-bearer", "by-block", "no-secret", "nobody"):
        for value in ("", "x", gateway.secret("small")):
            headers = {"X-Webhook-Secret": value, "Authorization": f"Bearer {value}".strip()}
            assert (await caller.post(f"/hooks/{rule_id}", headers=headers)).status_code == 401
    assert await count() == before
