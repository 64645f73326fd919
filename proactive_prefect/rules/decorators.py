"""Rules declared beside the code they run.

    @heartbeat(every="5m")
    async def disk(ctx: Context) -> HeartbeatResult: ...

A decorator notes what was declared and gives the function back as it was. The modules that the rules file names in
`[proactive] modules` are imported when the file is read; only then is what they declare checked, with everything else.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from .models import Kind

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True)
class Declared:
    """A rule as a decorator declared it: `keys` are those of the rules file. `call` names the function."""

    kind: Kind
    call: str
    keys: dict[str, Any]


@dataclass(frozen=True)
class Skill:
    """A function that skill rules may name. `action` is which of the skill's actions it is, None for the only one."""

    name: str
    action: str | None
    call: str


# By module, so that a module that is imported again replaces what it declared before.
_rules: dict[str, list[Declared]] = {}
_skills: dict[str, list[Skill]] = {}


def heartbeat(**keys: Any) -> Callable[[F], F]:
    """Run the function again and again: `every="5m"` or `cron="*/5 * * * *"`, and any other key of a rule.

    `id` defaults to the function's name. The function, sync or async, is given a `Context`.
    """
    return lambda function: _declare("heartbeat", function, keys)


def cron(expression: str, **keys: Any) -> Callable[[F], F]:
    """Run the function at the times of a cron expression: `@cron("0 9 * * mon-fri", timezone="Europe/Berlin")`."""
    return lambda function: _declare("cron", function, {"cron": expression, **keys})


def webhook(**keys: Any) -> Callable[[F], F]:
    """Run the function when somebody calls `POST /hooks/{id}`: `@webhook(id="orders", max_body=65536)`."""
    return lambda function: _declare("webhook", function, keys)


def skill(
    name: str | None = None, *, schedule: dict[str, Any] | None = None, action: str | None = None, **keys: Any
) -> Callable[[F], F]:
    """Register the function as a skill that skill rules run by its name; with a schedule, also as such a rule.

    `name` defaults to the function's. `action` names one of several actions of the skill. `schedule` is a table as in
    the file: `{"type": "interval", "every": "1h"}`.
    Raises TypeError for keys of a rule without a schedule.
    """
    if schedule is None and keys:
        raise TypeError(f"@skill has {', '.join(sorted(keys))}, but no schedule: only a scheduled skill is a rule")

    def register(function: F) -> F:
        known = name or _name(function)
        _of(_skills, function).append(Skill(known, action, _call(function)))
        if schedule is None:
            return function
        rule = {"skill": known, "schedule": schedule, **keys}
        return _declare("skill", function, rule if action is None else {"skill_action": action, **rule})

    return register


def declared(module: str) -> list[Declared]:
    """What `module`, and what it imported below itself, declared when it was imported, in that order."""
    return [rule for name, rules in _rules.items() if _is_in(name, module) for rule in rules]


def skills(module: str) -> list[Skill]:
    """The skills that `module`, and what it imported below itself, registered."""
    return [skill for name, skills in _skills.items() if _is_in(name, module) for skill in skills]


def forget(module: str) -> None:
    """Forget what `module` declared, before it is imported again."""
    _rules.pop(module, None)
    _skills.pop(module, None)


def _is_in(name: str, module: str) -> bool:
    return name == module or name.startswith(f"{module}.")


def _declare(kind: Kind, function: F, keys: dict[str, Any]) -> F:
    call = _call(function)
    named = {"id": _name(function), "action": {"type": "python", "call": call}, **keys}
    _of(_rules, function).append(Declared(kind, call, named))
    return function


def _of(registry: dict[str, list[Any]], function: Callable[..., Any]) -> list[Any]:
    return registry.setdefault(function.__module__, [])


def _name(function: Callable[..., Any]) -> str:
    return str(function.__name__).strip("_").lower()


def _call(function: Callable[..., Any]) -> str:
    return f"{function.__module__}:{function.__qualname__}"
