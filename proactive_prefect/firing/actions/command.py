"""The action `command`: a program, run without a shell."""

from __future__ import annotations

import os

from ...errors import ActionError
from ...rules.actions import CommandAction
from ..kept import run_kept
from ..masking import MaskedLogger, Masker
from ..output import Output
from ..references import resolve
from ..results import Context, HeartbeatResult


async def run_command(action: CommandAction, ctx: Context, masker: Masker, logger: MaskedLogger) -> HeartbeatResult:
    """Run the program to its end. Exit code 0: what it wrote to standard output is the message, nothing is quiet.

    It is given the webhook's payload on standard input, as it came (nothing for the other kinds), and PROACTIVE_RULE,
    PROACTIVE_KIND, PROACTIVE_DUE (ISO 8601), PROACTIVE_RUN_ID and PROACTIVE_ATTEMPT in its environment. Its output
    goes to the run's log as it comes. No process that it started outlives it. Raises ActionError on any other exit,
    with the last lines of its standard error.
    """
    argv = await resolve(action.argv, masker=masker, where="action.argv")
    env = await resolve(action.env, masker=masker, where="action.env")
    stdout = Output("standard output", masker, logger.info)
    stderr = Output("standard error", masker, logger.info)
    ended = await run_kept(
        argv,
        stdin=(ctx.payload_text or "").encode(errors="replace"),
        stdout=stdout.feed,
        stderr=stderr.feed,
        env={**os.environ, **_about(ctx), **env},
    )
    stdout.close()
    stderr.close()
    metadata = {"exit_code": ended.code, "stdout_bytes": stdout.total, "stderr_bytes": stderr.total}
    if ended.code != 0:
        last = stderr.last_lines(5) or stdout.last_lines(5)
        raise ActionError(f"{argv[0]}: {ended}{': ' if last else ''}{last}")
    message = stdout.text().strip()
    return HeartbeatResult(True, message, metadata) if message else HeartbeatResult(False, None, metadata)


def _about(ctx: Context) -> dict[str, str]:
    return {
        "PROACTIVE_RULE": ctx.rule_id,
        "PROACTIVE_KIND": ctx.kind,
        "PROACTIVE_DUE": ctx.due.isoformat(),
        "PROACTIVE_RUN_ID": ctx.run_id,
        "PROACTIVE_ATTEMPT": str(ctx.attempt),
    }
