"""Which runs of rules have changed, read from Prefect itself: the whole truth, for what its events left out."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from ..rules.models import KINDS
from .client import PrefectApi
from .events import StateChange
from .runs import CAUSE_LABEL, run_states

RESCHEDULED = "rescheduled"
"""The first word of the idempotency key of a run that stands for a rescheduled occurrence."""
_PAGE = 200
_ENDED = ["COMPLETED", "FAILED", "CRASHED", "CANCELLED"]
_OPEN = ["SCHEDULED", "PENDING", "RUNNING", "CANCELLING", "PAUSED"]


@dataclass(frozen=True)
class RuleRun:
    """A flow run of a rule, as Prefect has it now. The rule's id, kind and owner are those it was made with."""

    run_id: str
    name: str
    deployment_id: str | None
    rule_id: str
    kind: str
    owner_id: str
    due: datetime
    cause: str
    created: datetime
    delivery_id: str | None
    origin: str | None
    """The key of the occurrence that it was rescheduled from."""
    state_id: str | None
    state_type: str | None
    started: bool
    """It has been Running at some time."""
    session_id: str | None = None


async def runs_at(api: PrefectApi, now: datetime) -> list[RuleRun]:
    """Every run that was due by `now` and has not ended."""
    due = {"expected_start_time": {"before_": now.isoformat()}, "state": {"type": {"any_": _OPEN}}}
    return await _runs(api, due)


async def runs_ended(api: PrefectApi, since: datetime) -> list[RuleRun]:
    """Every run that has ended since then."""
    return await _runs(api, {"end_time": {"after_": since.isoformat()}, "state": {"type": {"any_": _ENDED}}})


async def runs_by_id(api: PrefectApi, run_ids: Iterable[str]) -> list[RuleRun]:
    """The runs of these ids that Prefect has and that are a rule's."""
    found: list[RuleRun] = []
    wanted = list(run_ids)
    for first in range(0, len(wanted), _PAGE):
        ids = wanted[first : first + _PAGE]
        page = await api.post("/flow_runs/filter", {"flow_runs": {"id": {"any_": ids}}, "limit": _PAGE})
        found += [run for one in page if (run := _rule_run(one)) is not None]
    return found


async def state_history(api: PrefectApi, run_id: str) -> list[StateChange]:
    """Every state that the run has been in, in order."""
    history: list[StateChange] = []
    for state in await run_states(api, run_id):
        history.append(
            StateChange(
                run_id=run_id,
                state_id=str(state.id),
                type=state.type.value,
                name=state.name or "",
                message=state.message or "",
                at=state.timestamp,
                before=history[-1].name if history else None,
            )
        )
    return history


async def _runs(api: PrefectApi, wanted: dict[str, Any]) -> list[RuleRun]:
    found: list[RuleRun] = []
    offset = 0
    while True:
        page: Sequence[dict[str, Any]] = await api.post(
            "/flow_runs/filter",
            {
                "flows": {"name": {"any_": list(KINDS)}},
                "flow_runs": wanted,
                "sort": "ID_DESC",  # ids stay in their order while runs change
                "limit": _PAGE,
                "offset": offset,
            },
        )
        found += [run for one in page if (run := _rule_run(one)) is not None]
        offset += len(page)
        if len(page) < _PAGE:
            return found


def _rule_run(data: dict[str, Any]) -> RuleRun | None:
    """The run, if it is one of a rule: each carries the rule in its parameters, whatever became of its deployment."""
    try:
        rule = json.loads(data["parameters"]["rule"])
        rule_id, kind, owner = str(rule["id"]), rule["kind"], str(rule["owner"])
        session = rule.get("session")
    except (KeyError, TypeError, ValueError):
        return None
    if kind not in KINDS:
        return None
    key = str(data.get("idempotency_key") or "")
    delivery = _after(key, f"webhook {rule_id} ")
    return RuleRun(
        run_id=data["id"],
        name=data["name"],
        deployment_id=data["deployment_id"],
        rule_id=rule_id,
        kind=kind,
        owner_id=owner,
        due=datetime.fromisoformat(data["expected_start_time"] or data["created"]),
        cause=_cause(data, delivery),
        created=datetime.fromisoformat(data["created"]),
        delivery_id=delivery,
        origin=_after(key, f"{RESCHEDULED} {rule_id} "),
        state_id=data["state_id"],
        state_type=data["state_type"],
        started=data["start_time"] is not None,
        session_id=session if isinstance(session, str) else None,
    )


def _after(text: str, prefix: str) -> str | None:
    return text.removeprefix(prefix) if text.startswith(prefix) else None


def _cause(data: dict[str, Any], delivery: str | None) -> str:
    if data["auto_scheduled"]:
        return "schedule"
    told = (data.get("labels") or {}).get(CAUSE_LABEL)
    return "webhook" if delivery is not None else told if told in ("schedule", "webhook") else "manual"
