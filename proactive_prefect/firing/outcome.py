"""How a run ends: a named state with a message that can be read, and an artifact where there is something to say.

A state's message is the first paragraph, cut where it is long. The whole text is in the artifact, keyed by the rule:
Prefect's UI shows its history.
"""

from __future__ import annotations

import json
import re
from datetime import UTC
from uuid import uuid4

from prefect.client.schemas.objects import State, StateDetails, StateType
from prefect.states import Cancelled, Completed, Failed

from ..errors import ProactiveError
from ..prefect_api import PrefectApi
from ..rules.models import RuleBase
from ..rules.state_names import MISSED, QUIET, SKIPPED, TIMED_OUT
from .gate import Hold, Occurrence, Skip
from .results import HeartbeatResult

MESSAGE_LENGTH = 300
ARTIFACT_LENGTH = 200_000


def skipped(skip: Skip) -> State[None]:
    """Cancelled, named Skipped: "code: text"."""
    return Cancelled(name=SKIPPED, message=_short(str(skip)))


def missed(hold: Hold) -> State[None]:
    """Paused, named Missed: Prefect's Resume makes it Scheduled again, for the same expected start; Cancel ends it."""
    return State(
        type=StateType.PAUSED,
        name=MISSED,
        message=_short(f"{hold}. Resume runs it, Cancel drops it."),
        # Prefect takes a key once, and a run that catches up may have to wait more than once.
        state_details=StateDetails(pause_reschedule=True, pause_key=f"{MISSED} {uuid4()}"),
    )


def completed(result: HeartbeatResult) -> State[None]:
    """Completed, or Quiet where there is nothing to say."""
    if not result.should_notify:
        return Completed(name=QUIET)
    first, _, more = (result.message or "Done.").strip().partition("\n\n")
    return Completed(message=_short(f"{first} …" if more.strip() else first))


def failed(error: BaseException, attempts: int) -> State[None]:
    """Failed, with the error in one line."""
    text = error.message if isinstance(error, ProactiveError) else f"{type(error).__name__}: {error}"
    return Failed(message=_short(f"{text}{_after(attempts)}"))


def timed_out(rule: RuleBase, attempts: int) -> State[None]:
    """Failed, named TimedOut, as Prefect's own."""
    seconds = rule.timeout.total_seconds()
    return Failed(name=TIMED_OUT, message=f"The action did not end within {seconds:g} s{_after(attempts)}")


async def leave_artifact(api: PrefectApi, rule: RuleBase, result: HeartbeatResult, occurrence: Occurrence) -> None:
    """Keep what the action said as a markdown artifact of its run. Raises Refused, PrefectUnreachable."""
    text = result.message or ""
    if len(text) > ARTIFACT_LENGTH:
        text = f"{text[:ARTIFACT_LENGTH]}\n\n… cut: {len(text) - ARTIFACT_LENGTH} more characters"
    if result.metadata:
        shown = json.dumps(result.metadata, indent=2, ensure_ascii=False, sort_keys=True)[:ARTIFACT_LENGTH]
        fence = "`" * max(3, 1 + max((len(ticks) for ticks in re.findall("`+", shown)), default=0))
        text = f"{text}\n\n{fence}json\n{shown}\n{fence}"
    artifact = {
        "key": artifact_key(rule),
        "type": "markdown",
        "data": text.strip() or "(no text)",
        "description": f"{rule.id}, due {occurrence.due.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC",
        "flow_run_id": str(occurrence.run_id),
    }
    await api.post("/artifacts/", artifact)


def artifact_key(rule: RuleBase) -> str:
    """The rule's key among Prefect's artifacts: "heartbeat-disk", with nothing but letters, digits and dashes."""
    slug = re.sub(r"[^a-z0-9]+", "-", f"{getattr(rule, 'kind', 'rule')}-{rule.id}".lower())
    return slug.strip("-")


def _after(attempts: int) -> str:
    return f" ({attempts} attempts)" if attempts > 1 else ""


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= MESSAGE_LENGTH else f"{line[: MESSAGE_LENGTH - 1]}…"
