"""YAML, read as YAML 1.2 does (`on`, `off`, `yes` and `no` are text), and JSON."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any, NoReturn

import yaml
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from ..errors import Mistake
from .source import Key, SyntaxMistake, key_path

_MAX_NODES = 100_000  # aliases to aliases would otherwise grow without bound


class _Loader(yaml.SafeLoader):
    """Resolves plain scalars by the core schema of YAML 1.2. Dates stay text, as in JSON."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012 - PyYAML's own shape


for _tag, _pattern, _first in (
    ("tag:yaml.org,2002:null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("tag:yaml.org,2002:bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("tag:yaml.org,2002:int", r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", list("-+0123456789")),
    (
        "tag:yaml.org,2002:float",
        r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
        list("-+0123456789."),
    ),
):
    _Loader.add_implicit_resolver(_tag, re.compile(rf"^(?:{_pattern})$"), _first)

_SCALARS: dict[str, Callable[[str], Any]] = {
    "tag:yaml.org,2002:null": lambda text: None,
    "tag:yaml.org,2002:bool": lambda text: text.lower() == "true",
    "tag:yaml.org,2002:int": lambda text: int(text, 0) if text[:2] in ("0o", "0x") else int(text),
    "tag:yaml.org,2002:float": lambda text: float(text.lower().replace(".inf", "inf").replace(".nan", "nan")),
    "tag:yaml.org,2002:str": str,
}
_COLLECTIONS = ("tag:yaml.org,2002:map", "tag:yaml.org,2002:seq")
_PLAIN = "text, numbers, true, false, lists and tables, without tags"


def parse_yaml(text: str) -> tuple[Any, dict[Key, int], list[Mistake]]:
    """The values of a YAML text, the line of each key and item, and its double keys. Raises SyntaxMistake."""
    root = _compose(text, "YAML")
    builder = _Builder()
    data = {} if root is None else builder.build(root, ())
    return data, builder.lines, builder.mistakes


def parse_json(text: str) -> tuple[Any, dict[Key, int], list[Mistake]]:
    """`parse_yaml`, for JSON, which is read as strictly as the json module does."""
    try:
        data = json.loads(text, parse_constant=_no_constant)
    except json.JSONDecodeError as problem:
        found = f"is not JSON: {problem.msg[:1].lower()}{problem.msg[1:]}"
        raise SyntaxMistake(problem.lineno, found, "JSON") from None
    except ValueError as problem:
        raise SyntaxMistake(0, f"has a number that cannot be used ({problem})"[:200], "JSON numbers") from None
    # YAML forbids tabs between its tokens; JSON has them nowhere else.
    root = _compose(text.replace("\t", " "), "JSON")
    builder = _Builder()
    if root is not None:
        builder.build(root, ())
    return data, builder.lines, builder.mistakes


def _no_constant(name: str) -> NoReturn:
    raise ValueError(name)


def _compose(text: str, language: str) -> Node | None:
    try:
        root: Node | None = yaml.compose(text, Loader=_Loader)
    except yaml.MarkedYAMLError as problem:
        mark = problem.problem_mark or problem.context_mark
        what = problem.problem or problem.context or "cannot be parsed"
        raise SyntaxMistake(
            mark.line + 1 if mark else 0, f"is not {language}: {what}", f"one {language} document"
        ) from None
    except yaml.YAMLError as problem:
        raise SyntaxMistake(0, f"is not {language}: {str(problem).splitlines()[0]}", f"{language} text") from None
    return root


class _Builder:
    """Builds values from nodes, and notes lines and mistakes on the way."""

    def __init__(self) -> None:
        self.lines: dict[Key, int] = {}
        self.mistakes: list[Mistake] = []
        self._open: set[int] = set()
        self._count = 0

    def build(self, node: Node, key: Key) -> Any:
        self._count += 1
        if self._count > _MAX_NODES or id(node) in self._open:
            raise SyntaxMistake(_line(node), "its aliases refer to themselves or to too much", "fewer aliases")
        self.lines.setdefault(key, _line(node))
        self._open.add(id(node))
        try:
            if isinstance(node, ScalarNode):
                return self._scalar(node, key)
            if node.tag not in _COLLECTIONS:
                self._mistake(node, key, f"has the tag {node.tag!r}", _PLAIN)
            if isinstance(node, SequenceNode):
                return [self.build(item, (*key, index)) for index, item in enumerate(node.value)]
            assert isinstance(node, MappingNode)  # YAML has no other node
            return self._mapping(node, key)
        finally:
            self._open.discard(id(node))

    def _mapping(self, node: MappingNode, key: Key) -> dict[str, Any]:
        values: dict[str, Any] = {}
        for name_node, value_node in node.value:
            if not isinstance(name_node, ScalarNode):
                raise SyntaxMistake(_line(name_node), "a key is a list or a table", "keys that are text")
            name = name_node.value
            inner = (*key, name)
            if name in values:
                first = self.lines[inner]
                found = f"the key {name!r} stands here twice, first on line {first}"
                self._mistake(name_node, inner, found, "each key once")
                continue
            self.lines[inner] = _line(name_node)
            values[name] = self.build(value_node, inner)
        return values

    def _scalar(self, node: ScalarNode, key: Key) -> Any:
        convert = _SCALARS.get(node.tag)
        if convert is None:
            self._mistake(node, key, f"has the tag {node.tag!r}", _PLAIN)
            return None
        try:
            return convert(node.value)
        except ValueError:
            self._mistake(node, key, "is not what its tag says", _PLAIN)
            return None

    def _mistake(self, node: Node, key: Key, found: str, allowed: str) -> None:
        self.mistakes.append(Mistake(_line(node), key_path(key), found, allowed))


def _line(node: Node) -> int:
    line: int = node.start_mark.line + 1
    return line
