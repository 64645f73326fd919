"""A payload that is too large to come along is fetched from the inbox."""

from __future__ import annotations

from pathlib import Path
from uuid import uuid4

import pytest
from prefect.client.schemas.objects import FlowRun

from proactive_prefect.errors import ActionError
from proactive_prefect.firing.payloads import fetch_payload
from proactive_prefect.firing.results import Context
from proactive_prefect.ledger.db import open_ledger
from proactive_prefect.ledger.delivery_log import erase
from proactive_prefect.prefect_api.runs import PAYLOAD_LABEL
from proactive_prefect.rules.models import WebhookRule
from proactive_prefect.settings import Settings
from proactive_prefect.webhooks.inbox import Inbox

from ..webhooks.calls import a_call

RULE = WebhookRule.model_validate({"id": "hook", "action": {"type": "python", "call": "a:b"}})
TEXT = '"' + "x" * 600_000 + '"'


def a_run(delivery_id: str | None) -> FlowRun:
    return FlowRun(flow_id=uuid4(), labels={PAYLOAD_LABEL: delivery_id} if delivery_id else {})


async def test_a_run_fetches_what_was_left_for_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All of it; a run without the label asks nobody; what was erased, or is elsewhere, fails with a hint."""
    monkeypatch.setenv("PROACTIVE_HOME", str(tmp_path / "home"))
    async with open_ledger(Settings()) as ledger:
        made = (await Inbox(ledger).accept(a_call("large", payload=TEXT))).delivery
        assert await fetch_payload(a_run(made.id), RULE) == TEXT
        assert await fetch_payload(a_run(None), RULE) is None
        with pytest.raises(ActionError, match="not in the inbox") as elsewhere:
            await fetch_payload(a_run("nowhere"), RULE)
        assert "PROACTIVE_DATABASE_URL" in elsewhere.value.hint
        async with ledger.write() as session:
            await session.merge(made)
            made.status = "dispatched"
            await session.merge(made)
            await session.flush()
            assert await erase(session, await ledger.now(session), name=made.id) == 1
        with pytest.raises(ActionError, match="was erased"):
            await fetch_payload(a_run(made.id), RULE)


def test_a_payload_is_marked_untrusted() -> None:
    """An action can tell whether words of a stranger are in its hands."""
    from datetime import UTC, datetime

    now = datetime.now(UTC)
    assert Context(rule_id="r", kind="webhook", due=now, run_id="1", payload_text="{}").untrusted
    assert not Context(rule_id="r", kind="cron", due=now, run_id="1").untrusted
