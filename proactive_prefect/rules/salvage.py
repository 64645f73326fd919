"""What is left of a rule without its mistakes, so that it can be looked at once more for those they hide."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from .models import RULE_MODELS, Kind
from .source import Key

# What takes the place of a required key that is wrong, so that the rest of its rule can still be looked at.
_STAND_INS: dict[str, Any] = {
    "id": "unnamed",
    "action": {"type": "command", "argv": ["true"]},
    "cron": "0 0 * * *",
    "every": "10d",
    "skill": "unnamed",
    "schedule": {"type": "interval", "every": "10d"},
}


def present(key: Key, keys: Mapping[str, Any]) -> Key:
    """The part of `key` that is there, up to the first item of a list; of a rule's required keys, the first part."""
    value: Any = keys
    for length, part in enumerate(key):
        if length == 1 and key[0] in _STAND_INS:
            return key[:1]
        if not isinstance(value, Mapping) or part not in value:
            return key[: max(length, 1)]
        value = value[part]
    return key


def without(keys: dict[str, Any], wrong: Iterable[Key], kind: Kind) -> dict[str, Any]:
    """`keys` without the wrong ones, with stand-ins for those that a rule must have."""
    for key in wrong:
        keys = _removed(keys, key)
        # A skill that is not known has no action to give to its rule either.
        for name in (key[0], "action" if key[0] in ("skill", "skill_action") else None):
            if name in _STAND_INS and name not in keys and name in RULE_MODELS[kind].model_fields:
                keys[str(name)] = _STAND_INS[str(name)]
    return keys


def _removed(keys: Mapping[str, Any], key: Key) -> dict[str, Any]:
    first, rest = str(key[0]), key[1:]
    if not rest or not isinstance(keys.get(first), Mapping):
        return {name: value for name, value in keys.items() if name != first}
    return {**keys, first: _removed(keys[first], rest)}
