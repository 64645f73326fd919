"""What a run's span tells: the rule, its owner, the run, how late it began, and how it ended."""

from __future__ import annotations

from typing import Any

from prefect.client.schemas.objects import FlowRun, State, StateType

from ..rules.models import Rule, RuleBase
from ..rules.state_names import SKIPPED
from ..tracing import LABEL, Span, fail
from .gate import Occurrence

_FAILED = (StateType.FAILED, StateType.CRASHED)


def about(rule: Rule | RuleBase, occurrence: Occurrence) -> dict[str, Any]:
    """The attributes of a span about a run."""
    began = occurrence.started
    return {
        "proactive.rule.id": rule.id,
        "proactive.rule.kind": getattr(rule, "kind", None),
        "proactive.owner": rule.owner,
        "proactive.session": rule.session,
        "proactive.run.id": str(occurrence.run_id),
        "proactive.cause": occurrence.cause,
        "proactive.due": occurrence.due.isoformat(),
        "proactive.start_lag_seconds": None if began is None else max(0.0, (began - occurrence.due).total_seconds()),
    }


def parent_of(run: FlowRun) -> str | None:
    """The trace that the run carries."""
    found = run.labels.get(LABEL)
    return found if isinstance(found, str) else None


def tell_outcome(current: Span, state: State[Any]) -> None:
    """Say how the run ended: by the state's name, and for a skip its code. Messages stay out: they are an action's."""
    current.set_attribute("proactive.outcome", state.name or "")
    if state.name == SKIPPED:
        current.set_attribute("proactive.skip.code", (state.message or "").partition(":")[0])
    if state.type in _FAILED:
        fail(current, state.name or "Failed")
