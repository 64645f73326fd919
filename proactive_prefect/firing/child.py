"""Calls one sync function in a process of its own: `python -m proactive_prefect.firing.child`.

The request comes as JSON on standard input; log records and the answer go as JSON lines to what was standard output,
which the function itself does not see: what it prints goes to standard error.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import threading
import traceback
from datetime import datetime
from typing import Any, TextIO

from ..errors import ActionError
from .load import describe, load_call
from .results import Context, HeartbeatResult, to_result

_LONGEST_RECORD = 8 * 1024
_one_at_a_time = threading.Lock()  # the function may have threads that log while it returns


def main() -> None:
    """Answer the request, and end at once, whatever threads the function left."""
    channel = os.fdopen(os.dup(1), "w", encoding="utf-8")
    request = json.load(sys.stdin)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.dup2(2, 1)
    sys.path[:] = request["sys_path"]
    logging.basicConfig(level=logging.INFO, handlers=[_ToParent(channel)])
    _say(channel, _answer(request))
    channel.close()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def _answer(request: dict[str, Any]) -> dict[str, Any]:
    call = request["call"]
    ctx = Context(
        **(request["context"] | {"wakes": tuple(request["context"]["wakes"])}),
        due=datetime.fromisoformat(request["due"]),
        logger=logging.getLogger(f"proactive.{request['context']['rule_id']}"),
    )
    try:
        result = to_result(load_call(call)(*request["arguments"], ctx), call)
    except ActionError as error:
        return {"error": error.message, "hint": error.hint}
    except BaseException as error:
        # The frames of this module say nothing to the function's author.
        shown = error.__traceback__.tb_next if error.__traceback__ else None
        return {
            "error": f"{call}: {describe(error)}",
            "traceback": "".join(traceback.format_exception(type(error), error, shown))[-64 * 1024 :],
        }
    return {"result": _fields(result)}


def _fields(result: HeartbeatResult) -> dict[str, Any]:
    return {"should_notify": result.should_notify, "message": result.message, "metadata": dict(result.metadata)}


class _ToParent(logging.Handler):
    """Sends each log record to the process that waits for the answer."""

    def __init__(self, channel: TextIO) -> None:
        super().__init__()
        self.setFormatter(logging.Formatter("%(message)s"))
        self._channel = channel

    def emit(self, record: logging.LogRecord) -> None:
        text = self.format(record)
        cut = f" … ({len(text) - _LONGEST_RECORD} more characters)" if len(text) > _LONGEST_RECORD else ""
        _say(self._channel, {"level": record.levelno, "log": text[:_LONGEST_RECORD] + cut})


def _say(channel: TextIO, message: dict[str, Any]) -> None:
    try:
        with _one_at_a_time:
            channel.write(json.dumps(message) + "\n")
            channel.flush()
    except BrokenPipeError:  # nobody waits any more, and the end is near
        os._exit(1)


if __name__ == "__main__":
    main()
