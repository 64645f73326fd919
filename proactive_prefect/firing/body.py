"""What every run of ours does, whatever the worker: gate, action, outcome. The four flows are this one body.

The action is a Prefect task without parameters and without a kept result, so that neither the payload nor what the
action returned is stored with the task run: what is to be kept is in the state's message and the artifact.
"""

from __future__ import annotations

import asyncio
import random
import time
from datetime import UTC, datetime, timedelta
from typing import Any, assert_never
from uuid import UUID

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.objects import FlowRun, State
from prefect.client.schemas.responses import SetStateStatus
from prefect.context import FlowRunContext
from prefect.exceptions import Abort, Pause
from prefect.logging import get_run_logger
from prefect.states import Failed
from pydantic import ValidationError

from ..errors import ActionError, ProactiveError
from ..prefect_api import PrefectApi
from ..prefect_api.runs import cancel_run, read_run, set_state
from ..prefect_api.wakes import read_wakes
from ..rules.models import Rule, RuleBase, from_snapshot
from ..rules.state_names import TIMED_OUT
from ..settings import Settings
from ..tracing import SpanKind, fail, flush, span
from .actions import act
from .facts import gather, occurrence_of
from .gate import Hold, Occurrence, Run, Skip, decide
from .outcome import completed, failed, leave_artifact, missed, skipped, timed_out
from .payloads import fetch_payload
from .results import Context, HeartbeatResult, Logger
from .spans import about, parent_of, tell_outcome

CANCEL_PATIENCE = 90.0  # seconds in which a cancelled run must have ended
_CANCEL_LOOK = 0.5
_LONGEST_DELAYS = 50  # Prefect takes no more, and uses the last for all further ones


async def fire(rule_json: str, payload: str | None = None) -> State[None]:
    """Fire the rule in `rule_json` (as `to_snapshot` wrote it) for the flow run that this is called in.

    Returns the state that the run ends in. Leaves by Prefect's Pause where the run is held as Missed.
    """
    context = FlowRunContext.get()
    if context is None or context.flow_run is None or not isinstance(context.client, PrefectClient):
        raise RuntimeError("fire() is the body of an async flow: call it in one")
    logger = get_run_logger()
    try:
        rule = from_snapshot(rule_json)
    except ValidationError as error:
        # Not the error's own text: it quotes what it was given.
        return Failed(message=f"The parameter `rule` is not a rule of this version: {error.error_count()} mistakes.")
    api = PrefectApi(context.client, Settings())
    run = context.flow_run
    occurrence = occurrence_of(run, rule)
    try:
        with span("run", kind=SpanKind.CONSUMER, parent=parent_of(run), attributes=about(rule, occurrence)) as current:
            try:
                state = await _fire(api, rule, run, occurrence, payload, logger)
            except Pause as held:
                if held.state is not None:
                    tell_outcome(current, held.state)
                raise
            tell_outcome(current, state)
            return state
    finally:
        await flush()


async def _fire(
    api: PrefectApi, rule: Rule, run: FlowRun, occurrence: Occurrence, payload: str | None, logger: Logger
) -> State[None]:
    with span("gate", attributes={}):
        facts, wakes = await asyncio.gather(gather(api, rule, run), _wakes(api, rule, run))
        decision = decide(rule, occurrence, facts)
    match decision:
        case Skip():
            logger.info("Skipped: %s", decision)
            return skipped(decision)
        case Hold():
            return await _hold(api, run, decision)
        case Run():
            pass
        case _:
            assert_never(decision)
    for other in decision.cancel:
        if not await _cancel(api, other, run):
            text = f"run {other} did not end within {CANCEL_PATIENCE:g} s of being cancelled"
            return skipped(Skip("overlap", text))
    await _until(occurrence)
    try:
        payload = await fetch_payload(run, rule) or payload
    except ActionError as error:
        return failed(error, 1)
    return await _act(api, rule, occurrence, payload, wakes, logger)


async def _hold(api: PrefectApi, run: FlowRun, hold: Hold) -> State[None]:
    answer = await set_state(api, run.id, missed(hold))
    if answer.status != SetStateStatus.ACCEPT:
        raise Abort(f"Prefect did not take the run as missed: {answer.details}")
    # As Prefect's own suspend does: the engine leaves, and writes no other state.
    raise Pause(state=answer.state)


async def _cancel(api: PrefectApi, other: UUID, run: FlowRun) -> bool:
    """Cancel an earlier run for this one, and wait for its end; False if it has not ended in time."""
    await cancel_run(api, other, reason=f'Cancelled by run {run.id} of the same rule (on_overlap = "cancel_running").')
    deadline = time.monotonic() + CANCEL_PATIENCE
    while time.monotonic() < deadline:
        state = (await read_run(api, other)).state
        if state is not None and state.is_final():
            return True
        await asyncio.sleep(_CANCEL_LOOK)
    return False


async def _until(occurrence: Occurrence) -> None:
    """Wait for the due time: Prefect rounds to whole seconds, and starts runs up to half a second early."""
    if occurrence.cause == "schedule":
        early = (occurrence.due - datetime.now(UTC)).total_seconds()
        if early > 0:
            await asyncio.sleep(early)


async def _wakes(api: PrefectApi, rule: Rule, run: FlowRun) -> tuple[str, ...]:
    """Why the heartbeat was woken. Asked anew: it may have been told since a worker read the run."""
    return await read_wakes(api, run.id) if rule.kind == "heartbeat" else ()


async def _act(
    api: PrefectApi, rule: Rule, occurrence: Occurrence, payload: str | None, wakes: tuple[str, ...], logger: Logger
) -> State[None]:
    attempts = 0

    @task(
        name=rule.action.type,
        task_run_name=rule.id,
        retries=rule.retries,
        retry_delay_seconds=_delays(rule),
        retry_jitter_factor=None,
        timeout_seconds=rule.timeout.total_seconds(),
        cache_policy=NO_CACHE,
        persist_result=False,
        log_prints=False,
    )
    async def action() -> HeartbeatResult:
        nonlocal attempts
        attempts += 1
        return await act(
            rule,
            Context(
                rule_id=rule.id,
                kind=rule.kind,
                due=occurrence.due,
                run_id=str(occurrence.run_id),
                attempt=attempts,
                owner=rule.owner,
                payload_text=payload,
                wakes=wakes,
                logger=logger,
            ),
        )

    with span("action", attributes={"proactive.action": rule.action.type}) as current:
        ended: State[Any] = await action(return_state=True)  # type: ignore[misc]  # Prefect types only the sync form
        current.set_attribute("proactive.attempts", attempts)
        if not ended.is_completed():
            fail(current, ended.name or "Failed")
    if not ended.is_completed():
        error = await ended.aresult(raise_on_failure=False)
        if ended.name == TIMED_OUT or isinstance(error, TimeoutError):
            return timed_out(rule, attempts)
        return failed(error, attempts)
    result: HeartbeatResult = await ended.aresult()
    if result.should_notify:
        try:
            await leave_artifact(api, rule, result, occurrence)
        except ProactiveError as error:
            # What the action did is done; a message that cannot be kept must not have it done again.
            logger.warning("The artifact could not be kept: %s", error)
    return completed(result)


def _delays(rule: RuleBase) -> list[float]:
    """Seconds before each retry: the rule's list, or its one delay times backoff each time; longer by the jitter."""
    count = min(rule.retries, _LONGEST_DELAYS)
    if isinstance(rule.retry_delay, list):
        given = [rule.retry_delay[min(nth, len(rule.retry_delay) - 1)] for nth in range(count)]
        seconds = [delay.total_seconds() for delay in given]
    else:
        longest = timedelta(days=1).total_seconds()
        seconds = [min(rule.retry_delay.total_seconds() * rule.backoff**nth, longest) for nth in range(count)]
    return [delay * (1 + random.random() * rule.jitter) for delay in seconds]  # noqa: S311 - a spread, no secret
