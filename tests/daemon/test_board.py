"""The line for the shell that `up` prints."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest

from proactive_prefect.daemon.board import addresses, curl_line
from proactive_prefect.daemon.declared import Declared
from proactive_prefect.daemon.upfile import UpFile, WebhookEntry
from proactive_prefect.rules.models import Rulebook

ACTION = {"type": "python", "call": "flows.actions:look"}


@pytest.mark.parametrize(
    ("schemes", "line"),
    [
        (["header"], "curl -H 'X-Webhook-Secret: s-0' -d '{\"hello\": \"world\"}' http://gateway/hooks/hook-0"),
        (["bearer"], "curl -H 'Authorization: Bearer s-0' -d '{\"hello\": \"world\"}' http://gateway/hooks/hook-0"),
        (["github", "bearer"], "curl -H 'Authorization: Bearer s-1' -d '{\"hello\": \"world\"}' http://gateway/hooks/hook-1"),
        (["github", "stripe"], None),
        ([], None),
    ],
)  # fmt: skip
def test_the_printed_line_calls_a_webhook_that_takes_its_secret_in_a_header(
    schemes: list[str], line: str | None
) -> None:
    """A call that has to be signed cannot be made by a line that shows a secret, so another webhook's is printed."""
    rules: list[dict[str, Any]] = [
        {"kind": "webhook", "id": f"hook-{n}", "scheme": scheme, "secret": "${env:S}", "action": ACTION}
        for n, scheme in enumerate(schemes)
    ]
    book = Rulebook.model_validate({"proactive": {}, "rules": rules})
    up_file = UpFile(
        prefect_url="http://prefect",
        prefect_api_url="http://prefect/api",
        gateway_url="http://gateway",
        token="t",
        webhooks={
            f"hook-{n}": WebhookEntry(url=f"http://gateway/hooks/hook-{n}", secret=f"s-{n}")
            for n in range(len(schemes))
        },
        pids={},
        started_at="2026-11-20T12:00:00+00:00",
    )
    assert curl_line(up_file, Declared(Path("proactive.toml"), book)) == line


def test_the_board_has_the_link_that_logs_in() -> None:
    """Whatever is in the token, the page gets that."""
    up_file = UpFile(
        prefect_url="http://prefect",
        prefect_api_url="http://prefect/api",
        gateway_url="http://gateway",
        token="a b&c/d",
        webhooks={},
        pids={},
        started_at="2026-11-20T12:00:00+00:00",
    )
    link = dict(addresses(up_file))["page"]
    assert httpx.URL(link).params["token"] == "a b&c/d"
    assert link.startswith("http://gateway/?token=a%20b")
