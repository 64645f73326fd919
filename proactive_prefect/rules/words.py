"""pydantic's errors in the words of a rules file: which key, what was found, what is allowed."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from difflib import get_close_matches
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from .policies import KeyMistake, Policies
from .source import Key, kind_of

# Keys whose values may be secrets, by name or because anything may stand below them.
_SECRET = re.compile(
    r"secret|token|passw|authorization|credential|cookie|api[_-]?key"
    r"|^(headers|env|json|config|parameters|job_variables|argv|url)$",
    re.IGNORECASE,
)

_KINDS = {
    "string": "text",
    "bool": "true or false",
    "int": "a whole number",
    "float": "a number",
    "list": "a list",
    "dict": "a table",
    "model": "a table",
    "model_attributes": "a table",
}


@dataclass(frozen=True)
class Finding:
    """A mistake by its key, before anybody knows the line it stands on."""

    key: Key
    found: str
    allowed: str


def findings(problem: ValidationError, model: type[BaseModel], data: Any) -> Iterator[Finding]:
    """Every error that pydantic found in `data` when it was read as `model`."""
    for error in problem.errors(include_url=False):
        key, owner, field = _locate(error["loc"], model)
        yield _finding(key, owner, field, error["type"], error["msg"], error["input"], error.get("ctx", {}))


def show(key: Key, value: Any) -> str:
    """`value` as a message may show it: short, never a table's contents, never what may be a secret."""
    if isinstance(value, dict | list) or value is None:
        return kind_of(value)
    if any(isinstance(part, str) and _SECRET.search(part) for part in key):
        return "a value that is not shown here"
    if isinstance(value, bool):
        return "true" if value else "false"
    text = repr(value) if isinstance(value, str | int | float) else repr(str(value))
    return text if len(text) <= 80 else f"{text[:76]}...{text[0]}" if isinstance(value, str) else text[:80]


def unknown(name: str, known: Iterable[str]) -> tuple[str, str]:
    """What to say about a name that nothing has: (found, allowed), with the nearest that something has."""
    names = list(known)
    near = _near(name, names)
    shown = name if len(name) <= 80 else f"{name[:77]}..."
    return f"{shown!r} is not known" + _did_you_mean(near), ", ".join(names)


def known_keys(model: type[BaseModel]) -> list[str]:
    """The keys of `model` as they stand in a file. A rule's `kind` is said by its table's name."""
    names = [field.alias or name for name, field in model.model_fields.items() if name != "kind"]
    return sorted(names, key=lambda name: model is not Policies and name in Policies.model_fields)


def _finding(
    key: Key, owner: type[BaseModel] | None, field: FieldInfo | None, code: str, text: str, value: Any, ctx: Any
) -> Finding:
    shown = show(key, value)
    match code:
        case "missing":
            return Finding(key, "is missing", _described(field) or _wanted(field))
        case "extra_forbidden":
            return Finding(key, *unknown(str(key[-1]), known_keys(owner) if owner else ()))
        case "union_tag_not_found":
            return Finding((*key, "type"), "is missing", _tags(field))
        case "union_tag_invalid":
            tags = ctx["expected_tags"].replace("'", "").split(", ")
            near = _near(ctx["tag"], tags)
            return Finding((*key, "type"), repr(ctx["tag"]) + _did_you_mean(near), _quoted(tags))
        case "literal_error":
            options = _literals(field)
            near = _near(value, options) if isinstance(value, str) else []
            return Finding(key, shown + _did_you_mean(near), _quoted(options) or ctx["expected"])
        case "value_error":
            return _own_words(key, ctx["error"], value)
        case "string_pattern_mismatch":
            return Finding(key, shown, _described(field) or f"text that matches {ctx['pattern']}")
        case "string_too_short" | "too_short":
            return Finding(key, f"{shown} is too short", f"at least {ctx['min_length']}")
        case "string_too_long" | "too_long":
            return Finding(key, f"{kind_of(value)} that is too long", f"at most {ctx['max_length']}")
        case "greater_than_equal" | "greater_than" | "less_than_equal" | "less_than":
            return Finding(key, shown, _bound(ctx))
        case _:
            kind = _KINDS.get(re.sub(r"_(type|parsing|from_float|parsing_size)$", "", code))
            return Finding(key, shown, kind or text)


def _own_words(key: Key, problem: ValueError, value: Any) -> Finding:
    found, _, allowed = str(problem).partition("; allowed: ")
    if isinstance(problem, KeyMistake):
        return Finding((*key, *problem.key), found, allowed)
    return Finding(key, show(key, value) if _is_secret(key) else found, allowed)


def _is_secret(key: Key) -> bool:
    return any(isinstance(part, str) and _SECRET.search(part) for part in key)


def _locate(loc: Key, model: type[BaseModel]) -> tuple[Key, type[BaseModel] | None, FieldInfo | None]:
    """The key in the file that pydantic's `loc` means, the model that owns it, and its field.

    `loc` also names the member of each union that pydantic chose, which no file does.
    """
    key: list[str | int] = []
    owner: type[BaseModel] | None = model
    field: FieldInfo | None = None
    parts = iter(loc)
    for part in parts:
        key.append(part)
        if owner is None or isinstance(part, int):
            continue
        known = {info.alias or name: info for name, info in owner.model_fields.items()}
        parent, field = owner, known.get(part)
        if field is None:
            return tuple(key), parent, None
        models = _models(field.annotation)
        if field.discriminator is not None:
            tag = next(parts, None)
            models = [one for one in models if tag in _literals(one.model_fields[str(field.discriminator)])]
        owner = models[0] if models else None
    return tuple(key), owner, field


def _models(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel) and get_origin(annotation) is None:
        return [annotation]
    return [model for argument in get_args(annotation) for model in _models(argument)]


def _literals(field: FieldInfo | None) -> list[str]:
    def inside(annotation: Any) -> Iterator[str]:
        if get_origin(annotation) is Literal:
            yield from get_args(annotation)
        else:
            for argument in get_args(annotation):
                yield from inside(argument)

    return list(inside(field.annotation)) if field else []


def _tags(field: FieldInfo | None) -> str:
    if field is None or field.discriminator is None:
        return "a type"
    name = str(field.discriminator)
    return _quoted([tag for model in _models(field.annotation) for tag in _literals(model.model_fields[name])])


def _wanted(field: FieldInfo | None) -> str:
    if field is None:
        return "a value"
    if options := _literals(field):
        return _quoted(options)
    if _models(field.annotation):
        return "a table"
    if get_origin(field.annotation) is list:
        return "a list"
    if field.examples:
        return f'such as "{field.examples[0]}"'
    return {str: "text", timedelta: 'a duration such as "5m"'}.get(field.annotation, "a value")  # type: ignore[arg-type]


def _described(field: FieldInfo | None) -> str:
    if field is None:
        return ""
    examples = ", ".join(f'"{example}"' for example in field.examples or ())
    return (field.description or "").rstrip(".") + (f" such as {examples}" if examples else "")


def _bound(ctx: dict[str, Any]) -> str:
    words = {"ge": "{} or more", "gt": "more than {}", "le": "up to {}", "lt": "less than {}"}
    return next(text.format(ctx[name]) for name, text in words.items() if name in ctx)


def _quoted(options: Iterable[str]) -> str:
    return ", ".join(f'"{option}"' for option in options)


def _near(word: str, options: list[str]) -> list[str]:
    by_case = {option.casefold(): option for option in options}
    return [by_case[near] for near in get_close_matches(word.casefold()[:100], by_case, n=1, cutoff=0.6)]


def _did_you_mean(near: list[str]) -> str:
    return f'; did you mean "{near[0]}"?' if near else ""
