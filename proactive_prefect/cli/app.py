"""The commands' table, and how errors reach people: one line and a hint on stderr, an exit code, never a traceback."""

from __future__ import annotations

import difflib
import importlib.metadata
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import Any

import cyclopts

from . import account, calendar, declare, deliveries, look, machine, missed, operate, soak
from .output import complain, hint_line

_HELP = """Heartbeats, cron rules, scheduled skills and webhooks, declared in one file, run by Prefect.

New here? `proactive init` writes a project into this folder, `proactive up` runs it.

Exit codes: 0 done, 1 failed, 2 wrong input, 3 differs. `--debug` with any command shows where an error came from."""

_PROJECT = cyclopts.Group("The rules file", sort_key=1)
_SERVER = cyclopts.Group("What is deployed", sort_key=2)
_MACHINE = cyclopts.Group("This machine", sort_key=3)

app = cyclopts.App(
    name="proactive",
    help=_HELP,
    help_format="markdown",
    version=lambda: f"proactive-prefect {importlib.metadata.version('proactive-prefect')}",
    result_action="return_value",
)
_COMMANDS: tuple[tuple[cyclopts.Group, tuple[Callable[..., Any], ...]], ...] = (
    (
        _PROJECT,
        (
            declare.init,
            declare.check,
            declare.next_,
            declare.plan,
            declare.apply,
            declare.render,
            declare.schema,
        ),
    ),
    (
        _SERVER,
        (
            look.list_,
            look.show,
            look.runs,
            account.why,
            account.events,
            calendar.calendar,
            operate.trigger,
            operate.pause,
            operate.resume,
            operate.cancel,
        ),
    ),
    (_MACHINE, (machine.up, machine.doctor, machine.gateway, machine.worker, soak.soak)),
)
missed.app.group = (_SERVER,)
app.command(missed.app)
for _group, _members in _COMMANDS:
    for _command in _members:
        app.command(_command, name=_command.__name__.strip("_"), group=_group)
deliveries.deliveries.group = (_SERVER,)
app.command(deliveries.deliveries)


def run(argv: Sequence[str]) -> int:
    """Run one command line; the exit code."""
    debug = "--debug" in argv
    words = [word for word in argv if word != "--debug"]
    try:
        answer = app(words, exit_on_error=False, print_error=False)
        sys.stdout.flush()
    except cyclopts.CycloptsError as error:
        return _misused(error, words)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # the reader of our output went away
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        if debug:
            traceback.print_exc()
        return _failed(error)
    return answer if isinstance(answer, int) else 0


def _misused(error: cyclopts.CycloptsError, words: Sequence[str]) -> int:
    command = words[0] if words else ""
    known = [name for name in app if not name.startswith("-")]
    if command and not command.startswith("-") and command not in known:
        near = difflib.get_close_matches(command, known, n=1)
        complain(f"no command {command!r}")
        hint_line(f"did you mean `proactive {near[0]}`?" if near else "`proactive --help` lists the commands.")
        return 2
    text = str(error).strip() or type(error).__name__
    complain(" ".join(text.split()))
    hint_line(f"`proactive {command} --help` shows how." if command in known else "`proactive --help` shows how.")
    return 2


def _failed(error: Exception) -> int:
    from pydantic import ValidationError

    from ..errors import ConfigError, ProactiveError

    match error:
        case ConfigError():
            for mistake in error.mistakes:
                place = f"{_short(error.file)}:{mistake.line}" if mistake.line else _short(error.file)
                complain(f"{place}: {str(mistake).removeprefix(f'line {mistake.line}: ')}")
            hint_line(error.hint or "nothing was changed; `proactive schema` gives the file's schema to editors.")
            return error.exit_code
        case ProactiveError():
            complain(error.message)
            hint_line(error.hint)
            return error.exit_code
        case ValidationError() if error.title == "Settings":
            for wrong in error.errors(include_url=False, include_input=False):
                complain(f"PROACTIVE_{str(wrong['loc'][0]).upper()}: {wrong['msg']}")
            hint_line("Settings are read from the environment and from .env.")
            return 2
        case BaseExceptionGroup() if len(error.exceptions) == 1 and isinstance(error.exceptions[0], Exception):
            return _failed(error.exceptions[0])
        case _:
            complain(f"{type(error).__name__}: {' '.join(str(error).split())}"[:500])
            hint_line("`--debug` shows where it came from.")
            return 1


def _short(path: str) -> str:
    """A path as people would write it here."""
    here = os.path.relpath(path)
    return path if here.startswith("..") else here
