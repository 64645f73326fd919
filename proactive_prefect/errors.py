"""Every error that a user can meet, in one tree:

ProactiveError            one line, a hint, an exit code
├── ConfigError           the rules file is wrong: all its mistakes at once        (exit 2)
├── InputError            a command, call or request was given something wrong     (exit 2)
│   └── UnknownRule       no rule has that id
├── PrefectError          Prefect refused something, or gave an answer of no use   (exit 1)
│   └── PrefectUnreachable  no answer from the Prefect API
└── ActionError           an action failed in a way that its author should read    (exit 1)
    └── SecretMissing     a ${env:…} or ${secret:…} that an action names is not there
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


class ProactiveError(Exception):
    """The root of all errors of this package.

    `message` is one line: what was wrong, where, what is allowed. `hint` is what to do next, or "".
    `exit_code` is what the command ends with.
    """

    exit_code = 1

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


@dataclass(frozen=True, order=True)
class Mistake:
    """One mistake in a rules file. `line` counts from 1 (0 where there is none); `path` is the key's path."""

    line: int
    path: str
    found: str
    allowed: str

    def __str__(self) -> str:
        where = f"line {self.line}: " if self.line else ""
        key = f"{self.path}: " if self.path else ""
        return f"{where}{key}{self.found}; allowed: {self.allowed}" if self.allowed else f"{where}{key}{self.found}"


class ConfigError(ProactiveError):
    """The rules file has mistakes. `mistakes` lists every one, by line; `file` is the path that was read."""

    exit_code = 2

    def __init__(self, file: str, mistakes: Sequence[Mistake], *, hint: str = "") -> None:
        self.file = file
        self.mistakes = tuple(sorted(mistakes))
        count = len(self.mistakes)
        super().__init__(f"{file}: {count} mistake{'' if count == 1 else 's'}", hint=hint)


class InputError(ProactiveError):
    """What the caller gave cannot be used; nothing was changed."""

    exit_code = 2


class UnknownRule(InputError):
    """No rule has that id."""


class PrefectError(ProactiveError):
    """Prefect refused something, or gave an answer of no use."""


class PrefectUnreachable(PrefectError):
    """The Prefect API did not answer."""


class ActionError(ProactiveError):
    """An action failed in a way that its author should read."""


class SecretMissing(ActionError):
    """A value that an action refers to by name is not there. The message has the name, never a value."""
