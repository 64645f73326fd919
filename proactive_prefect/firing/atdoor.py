"""The gate at the door: asked about a webhook's call before there is a run for it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from uuid import UUID, uuid4

from prefect.client.schemas.objects import FlowRun

from ..prefect_api import PrefectApi
from ..prefect_api.runs import CAUSE_LABEL
from ..rules.models import RuleBase
from .facts import gather, occurrence_of
from .gate import Decision, decide


async def judge_calls(api: PrefectApi, rule: RuleBase, deployment_id: str, payloads: Sequence[str]) -> list[Decision]:
    """What the gate says of each of the calls that came now, as it would of the run that it is about to get.

    Prefect is asked once for all of them: which of them is first is for the gate in front of their runs. The rule's
    session hook is not asked: it is the project's code, and belongs to the run. Raises PrefectError.
    """
    now = datetime.now(UTC)
    runs = [
        FlowRun(
            id=uuid4(),
            flow_id=uuid4(),  # nobody looks at it: there is no run yet
            deployment_id=UUID(deployment_id),
            created=now,
            expected_start_time=now,
            labels={CAUSE_LABEL: "webhook"},
            parameters={"payload": payload},
        )
        for payload in payloads
    ]
    facts = await gather(api, rule, runs[0], ask_session=False)
    return [decide(rule, occurrence_of(run, rule), facts) for run in runs]
