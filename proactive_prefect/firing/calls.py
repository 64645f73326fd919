"""Calls a user's function: an async one here, a sync one in a child process, where it can be ended at any line."""

from __future__ import annotations

import dataclasses
import json
import signal
import sys
import traceback
from typing import Any

from ..errors import ActionError
from .kept import run_kept
from .load import describe, is_async, load_call
from .masking import Masker
from .output import Output
from .results import Context, HeartbeatResult, to_result
from .watch import BlockedLoop, watch

LONGEST_ANSWER = 4 * 1024 * 1024  # bytes, of a child's whole conversation


async def run_call(
    call: str, arguments: tuple[str, ...], ctx: Context, masker: Masker, patience: float
) -> HeartbeatResult:
    """Call `call` ("module:function") with `arguments` and `ctx`, and read its answer.

    A function that blocks the event loop for longer than `patience` seconds is interrupted. Cancelled: an async
    function gets the cancellation, the process of a sync one is ended. Raises ActionError on whatever goes wrong.
    """
    with watch(patience, ctx.logger):
        try:
            function = load_call(call)
            if not is_async(function):
                return await _run_in_child(call, arguments, ctx, masker)
            return to_result(await function(*arguments, ctx), call)
        except (ActionError, BlockedLoop):
            raise
        except (Exception, SystemExit) as error:
            # The cause is told in words, and not chained: a traceback further up would show it unmasked.
            ctx.logger.error("%s failed:\n%s", call, "".join(traceback.format_exception(error)))
            raise ActionError(f"{call}: {describe(error)}") from None


async def _run_in_child(call: str, arguments: tuple[str, ...], ctx: Context, masker: Masker) -> HeartbeatResult:
    plain = [field.name for field in dataclasses.fields(ctx) if field.name not in ("due", "logger")]
    request = {
        "call": call,
        "arguments": arguments,
        "context": {name: getattr(ctx, name) for name in plain},
        "due": ctx.due.isoformat(),
        "sys_path": sys.path,
    }
    answer = _Answer(ctx)
    output = Output("the output", masker, ctx.logger.info)
    ended = await run_kept(
        # -u: what is printed is seen at once. -X faulthandler: a crash in C tells its Python line.
        [sys.executable, "-u", "-X", "faulthandler", "-m", f"{__package__}.child"],
        stdin=json.dumps(request).encode(),
        stdout=answer.feed,
        stderr=output.feed,
    )
    output.close()
    if answer.message is None:
        last = "" if ended.signal else output.last_lines(3)
        hint = "The run's log has what it said last."
        if ended.signal == signal.SIGKILL:
            hint += " The machine may have run out of memory."
        raise ActionError(
            f"{call}: its process ended without an answer ({ended}){': ' if last else ''}{last}", hint=hint
        )
    return answer.read(call)


class _Answer:
    """What a child says on its channel: JSON lines, log records and at last a result or an error."""

    def __init__(self, ctx: Context) -> None:
        self.message: dict[str, Any] | None = None
        self._ctx = ctx
        self._rest = b""

    def feed(self, chunk: bytes) -> None:
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        if len(self._rest) > LONGEST_ANSWER:
            raise ActionError(f"the answer is longer than {LONGEST_ANSWER // 1024 // 1024} MiB")
        for line in lines:
            try:
                said = json.loads(line)
            except ValueError:
                # A process that the function forked shares the channel, and two long lines can mix.
                self._ctx.logger.warning("a line of the log was garbled")
                continue
            if "log" in said:
                self._ctx.logger.log(said["level"], "%s", said["log"])
            else:
                self.message = said

    def read(self, call: str) -> HeartbeatResult:
        assert self.message is not None  # asked before
        if "error" in self.message:
            if self.message.get("traceback"):
                self._ctx.logger.error("%s failed:\n%s", call, self.message["traceback"])
            raise ActionError(self.message["error"], hint=self.message.get("hint", ""))
        return to_result(HeartbeatResult(**self.message["result"]), call)
