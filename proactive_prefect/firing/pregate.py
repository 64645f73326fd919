"""The gate before a run goes Pending: a skipped or missed occurrence starts no process."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import assert_never

from prefect.client.schemas.objects import FlowRun

from ..prefect_api import PrefectApi
from ..prefect_api.deployments import TAG
from ..prefect_api.fence import Fence
from ..prefect_api.runs import read_run, set_state
from ..rules.models import RuleBase, from_snapshot
from ..tracing import Span, SpanKind, span
from .facts import gather, is_scheduled, occurrence_of
from .gate import Facts, Hold, Run, Skip, decide
from .outcome import missed, skipped
from .spans import about, parent_of, tell_outcome


def catches_up(flow_run: FlowRun, now: float) -> bool:
    """Whether a run that waits is past its grace, and its rule lets it run all the same (`on_missed`).

    `now` is in epoch seconds. What waits in its rule's own queue, and what somebody has let go, does not catch up.
    """
    state, due = flow_run.state, flow_run.expected_start_time
    if state is None or state.name not in ("Scheduled", "Late") or due is None or not is_scheduled(flow_run):
        return False
    rule = _rule_of(flow_run) if due.timestamp() < now else None
    if rule is None or rule.on_missed not in ("run", "latest") or rule.on_overlap in ("queue_one", "queue_all"):
        return False
    return due.timestamp() + rule.grace.total_seconds() < now


async def is_settled(api: PrefectApi, flow_run: FlowRun, *, alone: bool) -> bool:
    """`pregate` for a run of any deployment: only one that carries a rule of ours goes through the gate.

    `alone`: nothing is known of another run of the rule at work. Then what Prefect knows of it is left to the gate in
    the run itself, which has to ask in any case; to ask here too would only make the usual run later.
    """
    rule = _rule_of(flow_run)
    return rule is not None and await pregate(api, flow_run, rule, alone=alone)


async def pregate(api: PrefectApi, flow_run: FlowRun, rule: RuleBase, *, alone: bool = False) -> bool:
    """Settle a scheduled run that must not start: Skipped, or held as Missed. True if it was; False: start it.

    The run's own first step is the gate again, which decides what cannot be decided here: between runs that start
    together, and by the session hook, which is the project's code and is not called in a worker.
    Asked ahead of the due time, only what is certain already is settled. Raises Refused, PrefectUnreachable.
    """
    occurrence = occurrence_of(flow_run, rule)
    now = datetime.now(UTC)
    usual = alone and rule.cooldown is None and rule.max_runs is None and now <= occurrence.due + rule.grace
    if usual or occurrence.due > now:
        facts = Facts(now=max(now, occurrence.due))
    else:
        facts = await gather(api, rule, flow_run, ask_session=False)
    decision = decide(rule, occurrence, facts)
    if isinstance(decision, Run):
        return False
    with span("run", kind=SpanKind.CONSUMER, parent=parent_of(flow_run), attributes=about(rule, occurrence)) as current:
        await _settle(api, flow_run, decision, current)
    return True


def _rule_of(flow_run: FlowRun) -> RuleBase | None:
    """The rule that the run carries; None if it is not one of ours, or not readable: the run itself says why."""
    snapshot = flow_run.parameters.get("rule")
    if TAG not in flow_run.tags or not isinstance(snapshot, str):
        return None
    try:
        return from_snapshot(snapshot)
    except ValueError:
        return None


async def _settle(api: PrefectApi, flow_run: FlowRun, decision: Skip | Hold, current: Span) -> None:
    """Tell what was decided, unless another worker has claimed the run meanwhile: then it is that one's to tell."""
    known = (await read_run(api, flow_run.id)).state
    if known is None or not known.is_scheduled():
        return
    match decision:
        case Skip():
            state = skipped(decision)
            await set_state(api, flow_run.id, state, transition=Fence(flow_run).of(state.type))
        case Hold():
            state = missed(decision)
            await set_state(api, flow_run.id, state, force=True)  # only so goes a run from Scheduled to Paused
        case _:
            assert_never(decision)
    tell_outcome(current, state)
