"""The gateway's whole OpenAPI, called with what hypothesis makes of it."""

from __future__ import annotations

import os

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from schemathesis.checks import CheckFunction
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    ignored_auth,
    response_schema_conformance,
    status_code_conformance,
)

from tests.gateway.conftest import TOKEN, Gateway, gateway  # noqa: F401 - the fixture

from .tried import TRIED

NO_HTTP = "Invalid HTTP request received."  # the web server itself says so of headers that are none
EVERYWHERE = (414, 431)  # the address or the headers are too long: said before it is known which operation was meant
EXAMPLES = (
    150 if os.environ.get("PROACTIVE_TEST_FUZZ") == "long" else 6
)  # for each operation: of what it asks for, and as many again of what it does not
CHECKS: list[CheckFunction] = [
    content_type_conformance, response_schema_conformance, status_code_conformance, ignored_auth,
]  # fmt: skip


@pytest.mark.timeout(3600 if EXAMPLES > 6 else 300)
def test_every_operation_answers_as_it_is_described(gateway: Gateway) -> None:  # noqa: F811
    """Whatever comes, the answer is one of those that the document names, and never a failure of the gateway's own."""
    operator = {"Authorization": f"Bearer {TOKEN}"}
    document = httpx.get(f"{gateway.url}/openapi.json", headers=operator, timeout=60).json()
    wrong: list[str] = []
    for found in schemathesis.openapi.from_dict(document).get_all_operations():
        operation = found.ok()
        if operation.path.endswith("/stream"):
            continue  # it goes on for ever; its own tests bound it

        def call(case: schemathesis.Case) -> None:
            secret = {"X-Webhook-Secret": gateway.secret("plain")} if case.path.startswith("/hooks/") else {}
            answer = case.call(base_url=gateway.url, headers={**operator, **secret}, timeout=60)
            TRIED["the gateway's OpenAPI (schemathesis)"] += 1
            assert answer.status_code not in (500, 501, 504), answer.text
            if answer.status_code not in EVERYWHERE and (answer.status_code, answer.text) != (400, NO_HTTP):
                case.validate_response(answer, checks=CHECKS)

        for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE):
            tried = settings(
                max_examples=EXAMPLES, deadline=None, database=None, suppress_health_check=list(HealthCheck)
            )
            try:
                tried(given(operation.as_strategy(generation_mode=mode))(call))()
            except Unsatisfiable:
                continue  # an operation that asks for nothing cannot be asked wrongly
            except (Exception, BaseExceptionGroup) as error:
                wrong.append(f"{operation.label} ({mode.value}): {error}")
    assert not wrong, "\n\n".join(wrong)
