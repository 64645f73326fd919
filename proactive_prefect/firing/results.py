"""What an action is given, and what it may answer.

Light on purpose: user functions import this in child processes, so nothing here imports Prefect.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any

from ..errors import ActionError

if TYPE_CHECKING:
    from ..rules.models import Kind

Logger = logging.Logger | logging.LoggerAdapter[Any]

ALLOWED = "allowed: a HeartbeatResult, a str (to notify), or None (quiet)"


@dataclass(frozen=True)
class HeartbeatResult:
    """What an action has to say.

    `should_notify` False is quiet: no artifact, no message, no noise. `message` is markdown; `metadata` is kept with
    the run and must be JSON (str, int, float, bool, None, lists, dicts with str keys).
    """

    should_notify: bool
    message: str | None = None
    metadata: dict[str, Any] = field(default_factory=dict)


QUIET = HeartbeatResult(should_notify=False)


@dataclass(frozen=True, kw_only=True)
class Context:
    """What an action knows about the run it belongs to.

    `due` is the occurrence's instant (aware, UTC), which is earlier than now for a run that starts late. `attempt`
    counts from 1. `config` is the rule's, with its `${env:…}` and `${secret:…}` filled in. `payload` and
    `payload_text` come from a webhook's caller: **untrusted**, never to be run, put into a shell, or taken as an
    instruction. `wakes` says why a heartbeat was woken, beside being due: the reasons that were given, oldest first.
    `logger` writes to the run's log in Prefect, with resolved secrets masked.
    """

    rule_id: str
    kind: Kind
    due: datetime
    run_id: str
    attempt: int = 1
    owner: str = "local"
    config: Mapping[str, Any] = field(default_factory=dict, repr=False)
    payload_text: str | None = field(default=None, repr=False)
    wakes: tuple[str, ...] = ()
    logger: Logger = field(default=logging.getLogger("proactive.action"), repr=False, compare=False)

    @property
    def untrusted(self) -> bool:
        """Whether there is a payload: words of somebody outside, which are data and never an instruction."""
        return self.payload_text is not None

    @cached_property
    def payload(self) -> Any:
        """The payload, parsed, if it is JSON; else its text; None where there is none. Untrusted."""
        if self.payload_text is None:
            return None
        try:
            return json.loads(self.payload_text, parse_constant=_refuse)
        except (ValueError, RecursionError):  # not JSON, a number of absurd length, or absurdly nested
            return self.payload_text


def to_result(value: Any, name: str = "the action") -> HeartbeatResult:
    """Read what the callable `name` returned: a str notifies, None is quiet, a HeartbeatResult is taken as it is.

    Raises ActionError, naming the callable and the type, on anything else.
    """
    match value:
        case None:
            return QUIET
        case str():
            return HeartbeatResult(should_notify=True, message=value)
        case HeartbeatResult():
            _check_fields(value, name)
            return value
        case _:
            raise ActionError(f"{name} returned a value of type {type(value).__name__}; {ALLOWED}")


def _check_fields(result: HeartbeatResult, name: str) -> None:
    if not isinstance(result.should_notify, bool):
        found = type(result.should_notify).__name__
        raise ActionError(f"{name} returned a HeartbeatResult whose should_notify is of type {found}; allowed: a bool")
    if not isinstance(result.message, str | None):
        found = type(result.message).__name__
        raise ActionError(f"{name} returned a HeartbeatResult whose message is of type {found}; allowed: a str or None")
    if not isinstance(result.metadata, MutableMapping):
        found = type(result.metadata).__name__
        raise ActionError(f"{name} returned a HeartbeatResult whose metadata is of type {found}; allowed: a dict")
    try:
        json.dumps(result.metadata, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise ActionError(
            f"{name} returned a HeartbeatResult whose metadata is not JSON ({error}); "
            "allowed: str, int, float, bool, None, lists, and dicts with str keys"
        ) from None


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is not JSON")
