"""The gateway's whole OpenAPI, called with what hypothesis makes of it."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis.checks import CheckFunction
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    ignored_auth,
    response_schema_conformance,
    status_code_conformance,
)

from tests.gateway.conftest import TOKEN, Gateway, gateway  # noqa: F401 - the fixture

from .tried import TRIED

EXAMPLES = 12  # for each operation, and each way to send it
CHECKS: list[CheckFunction] = [
    content_type_conformance, response_schema_conformance, status_code_conformance, ignored_auth,
]  # fmt: skip


@pytest.fixture(scope="module")
def document(gateway: Gateway) -> Any:  # noqa: F811
    """The gateway's own description of itself."""
    told = httpx.get(f"{gateway.url}/openapi.json", headers={"Authorization": f"Bearer {TOKEN}"}, timeout=60).json()
    return schemathesis.openapi.from_dict(told)


api = schemathesis.pytest.from_fixture("document")


# The stream goes on for ever; its own tests bound it.
@api.exclude(path_regex="/stream$").parametrize()
@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
def test_every_operation_answers_as_it_is_described(case: schemathesis.Case, gateway: Gateway) -> None:  # noqa: F811
    """Whatever comes, the answer is one of those that the document names, and never a failure of the gateway's own."""
    secret = {"X-Webhook-Secret": gateway.secret("plain")} if case.path.startswith("/hooks/") else {}
    answer = case.call(base_url=gateway.url, headers={"Authorization": f"Bearer {TOKEN}", **secret}, timeout=60)
    TRIED["the gateway's OpenAPI (schemathesis)"] += 1
    assert answer.status_code not in (500, 501, 504), answer.text
    case.validate_response(answer, checks=CHECKS)
