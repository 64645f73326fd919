"""Gathers what the gate needs to know, from Prefect, and only as far as the rule needs it.

The common case is one request: the runs of this rule that are at work, that ended since this one was due, or that stand
for the same due moment. Nothing is asked for a rule that allows overlap when a person or a webhook fires it.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from ..prefect_api import PrefectApi
from ..prefect_api.runs import AWAITING_RETRY, CAUSE_LABEL, FlowRun, count_runs, find_runs, run_states
from ..rules.conditions import Cause, read_payload
from ..rules.models import RuleBase
from ..rules.state_names import MISSED, SKIPPED
from .gate import Facts, Occurrence, RunFact, Stage
from .load import load_call

log = logging.getLogger("proactive.gate")

# Two runs can become Running at nearly the same time, and the first may be seen second: its transaction was stamped
# first and written second. Where another run is about to start, the gate looks again until that could have happened.
SETTLE = timedelta(seconds=2)
_LOOK_AGAIN = 0.25  # seconds
_HOOK_PATIENCE = 10.0  # seconds
_PAGE = 200  # the server's own limit


def occurrence_of(run: FlowRun, rule: RuleBase) -> Occurrence:
    """The occurrence that a run of `rule` stands for."""
    state = run.state
    started = state.timestamp if state is not None and state.is_running() else None
    due = run.expected_start_time or run.created or datetime.now(UTC)
    payload = run.parameters.get("payload")
    return Occurrence(rule.id, due, run.id, _cause(run), started, read_payload(payload))


async def gather(api: PrefectApi, rule: RuleBase, run: FlowRun, *, ask_session: bool = True) -> Facts:
    """The facts for the gate about `run`, a run of `rule`'s deployment. Raises Refused, PrefectUnreachable.

    `ask_session` says whether the rule's session hook, the project's own code, may be called in this process.
    """
    occurrence = occurrence_of(run, rule)
    runs = await _rivals(api, rule, run, occurrence)
    now = datetime.now(UTC)
    start = occurrence.started or now
    late = occurrence.cause == "schedule" and start > occurrence.due + rule.grace
    return Facts(
        now=now,
        runs=runs,
        ran_before=await _ran_before(api, rule, run, start) if rule.max_runs and occurrence.cause != "manual" else None,
        session_active=await _session_active(rule) if ask_session else None,
        approved=late and await _is_let_go(api, rule, run),
        later_due=await _later_due(api, run, occurrence, now) if late and rule.on_missed == "latest" else (),
    )


async def _is_let_go(api: PrefectApi, rule: RuleBase, run: FlowRun) -> bool:
    """Whether it was decided already that the run goes: somebody has resumed it, or it is run again after a crash."""
    told = {MISSED} if rule.on_missed == "ask" else set()
    if rule.retry_abandoned:
        told.add(AWAITING_RETRY)
    return bool(told) and any(state.name in told for state in await run_states(api, run.id))


def to_fact(run: FlowRun) -> RunFact:
    """What the gate sees of another run."""
    stage = _stage(run)
    began: datetime | None = run.start_time
    if stage == "running" and run.state is not None and run.state.is_running():
        began = run.state.timestamp  # a resumed run keeps its first start_time; what counts is when it began again
    elif stage == "ran" and run.end_time is not None:
        began = max(run.end_time - run.total_run_time, run.start_time or run.end_time - run.total_run_time)
    due = run.expected_start_time or run.created
    assert due is not None  # the server sets `created` on every run
    ended = run.end_time if stage in ("ran", "settled") else None
    return RunFact(run.id, due, is_scheduled(run), stage, began if stage != "waiting" else None, ended)


def _stage(run: FlowRun) -> Stage:
    state = run.state
    if state is None or state.is_scheduled() or state.is_pending():
        return "waiting"
    if state.is_running() or state.is_cancelling():
        return "running"
    if state.is_paused():
        return "held" if state.state_details.pause_reschedule else "running"
    was_held = any(key.startswith(MISSED) for key in run.empirical_policy.pause_keys or ())
    held_then_cancelled = state.is_cancelled() and was_held
    if (state.is_cancelled() and state.name == SKIPPED) or held_then_cancelled or not run.total_run_time:
        return "settled"
    return "ran"


def is_scheduled(run: FlowRun) -> bool:
    """Whether it stands for a due time of the rule: made by Prefect's scheduler, or for one that Prefect missed."""
    return bool(run.auto_scheduled) or run.labels.get(CAUSE_LABEL) == "schedule"


def _cause(run: FlowRun) -> Cause:
    if is_scheduled(run):
        return "schedule"
    return "webhook" if run.labels.get(CAUSE_LABEL) == "webhook" else "manual"


async def _rivals(api: PrefectApi, rule: RuleBase, run: FlowRun, occurrence: Occurrence) -> Sequence[RunFact]:
    if run.deployment_id is None or (
        rule.on_overlap == "allow" and occurrence.cause != "schedule" and rule.cooldown is None
    ):
        return ()
    due = occurrence.due.isoformat()
    since = (occurrence.due - rule.cooldown) if rule.cooldown else occurrence.due
    # Any of these: at work or about to be; ended since; due at the same time.
    wanted: dict[str, Any] = {
        "state": {"type": {"any_": ["PENDING", "RUNNING", "CANCELLING"]}},
        "end_time": {"after_": since.isoformat()},
        "expected_start_time": {"after_": due, "before_": due},
    }
    if rule.on_overlap == "queue_one":
        wanted["next_scheduled_start_time"] = {"before_": (datetime.now(UTC) + timedelta(seconds=60)).isoformat()}
    while True:
        found = await _any_of(api, run.deployment_id, wanted)
        others = [to_fact(other) for other in found if other.id != run.id]
        starting = [other for other in found if other.id != run.id and other.state and other.state.is_pending()]
        contended = [
            other for other in starting if rule.on_overlap in ("skip", "cancel_running") or _is_twin(other, occurrence)
        ]
        if not contended or occurrence.started is None or datetime.now(UTC) > occurrence.started + SETTLE:
            return others
        await asyncio.sleep(_LOOK_AGAIN)


async def _any_of(api: PrefectApi, deployment_id: UUID, wanted: Mapping[str, Any]) -> list[FlowRun]:
    """The runs of a deployment that pass one of these filters at least."""

    async def page(filters: dict[str, Any], offset: int = 0) -> list[FlowRun]:
        return await find_runs(api, [deployment_id], filters, sort="START_TIME_DESC", limit=_PAGE, offset=offset)

    found = await page({"operator": "or_", **wanted})
    if len(found) < _PAGE:
        return found
    # Those that were skipped decide nothing, and may be so many that they leave no room for the one that does.
    kept: dict[UUID, FlowRun] = {}
    for name, value in wanted.items():
        narrow = {"state": {"name": {"not_any_": [SKIPPED]}}, name: value}
        offset = 0
        while found := await page(narrow, offset):
            kept |= {run.id: run for run in found}
            offset += len(found)
    return list(kept.values())


def _is_twin(run: FlowRun, occurrence: Occurrence) -> bool:
    return is_scheduled(run) and occurrence.cause == "schedule" and run.expected_start_time == occurrence.due


async def _ran_before(api: PrefectApi, rule: RuleBase, run: FlowRun, start: datetime) -> int:
    """How many runs of the rule ran before this one; counted no further than `max_runs`."""
    if run.deployment_id is None or rule.max_runs is None:
        return 0
    begun = {
        "id": {"not_any_": [str(run.id)]},
        "state": {"type": {"not_any_": ["SCHEDULED", "PENDING", "PAUSED"]}, "name": {"not_any_": [SKIPPED]}},
        "start_time": {"before_": start.isoformat()},
    }
    at_most = await count_runs(api, run.deployment_id, begun)
    if at_most < rule.max_runs:
        return at_most
    # That counts runs that were cancelled before they started, too: now look at each.
    ran = offset = 0
    while ran < rule.max_runs and offset < at_most:
        page = await find_runs(api, [run.deployment_id], begun, sort="START_TIME_DESC", limit=_PAGE, offset=offset)
        ran += sum(_stage(other) in ("ran", "running") for other in page)
        offset += _PAGE
    return ran


async def _later_due(api: PrefectApi, run: FlowRun, occurrence: Occurrence, now: datetime) -> Sequence[datetime]:
    if run.deployment_id is None:
        return ()
    later = {
        "expected_start_time": {"after_": occurrence.due.isoformat(), "before_": now.isoformat()},
        "state": {"type": {"not_any_": ["CANCELLED", "CANCELLING"]}},
    }
    found = await find_runs(api, [run.deployment_id], later, limit=50)
    return [one.expected_start_time for one in found if is_scheduled(one) and one.expected_start_time]


async def _session_active(rule: RuleBase) -> bool | None:
    wanted = rule.conditions.session_active
    if wanted is None or rule.session_hook is None:
        return None
    try:
        hook = load_call(rule.session_hook)
        return bool(await asyncio.wait_for(_call(hook), _HOOK_PATIENCE))
    except Exception as error:  # the project's own code: whatever it raises, nothing runs
        log.warning("The session hook %s gave no answer: %s", rule.session_hook, type(error).__name__)
        return not wanted


async def _call(hook: Callable[..., Any]) -> Any:
    if inspect.iscoroutinefunction(hook):
        return await hook()
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[Any] = loop.create_future()

    def tell(setter: Callable[[Any], None], value: Any) -> None:
        if not answer.done():
            setter(value)

    def ask() -> None:
        try:
            value = hook()
        except BaseException as error:
            loop.call_soon_threadsafe(tell, answer.set_exception, RuntimeError(type(error).__name__))
        else:
            loop.call_soon_threadsafe(tell, answer.set_result, value)

    # A daemon, so that a hook that hangs does not keep the run's process alive.
    threading.Thread(target=ask, name="session-hook", daemon=True).start()
    return await answer
