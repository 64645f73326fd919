"""TOML: tomllib gives the values, tree-sitter the lines they stand on."""

from __future__ import annotations

import re
import tomllib
from typing import Any

import tree_sitter_toml
from tree_sitter import Language, Node, Parser

from ..errors import Mistake
from .source import Key, SyntaxMistake

_LANGUAGE = Language(tree_sitter_toml.language())
_WHERE = re.compile(r"^(?P<what>.*) \(at (?:line (?P<line>\d+), column \d+|end of document)\)$", re.DOTALL)


def parse_toml(text: str) -> tuple[Any, dict[Key, int], list[Mistake]]:
    """The values of a TOML text, the line of each key and item, and no mistakes. Raises SyntaxMistake."""
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as problem:
        raise _syntax_mistake(str(problem), text) from None
    except ValueError:  # an integer of thousands of digits
        raise SyntaxMistake(0, "has a number that is too long", "numbers of at most 4300 digits") from None
    lines: dict[Key, int] = {}
    _Lines(lines).document(Parser(_LANGUAGE).parse(text.encode()).root_node)
    return data, lines, []


def _syntax_mistake(problem: str, text: str) -> SyntaxMistake:
    match = _WHERE.match(problem)
    what = match["what"] if match else problem
    line = int(match["line"]) if match and match["line"] else text.count("\n") + 1
    return SyntaxMistake(line, f"is not TOML: {what[:1].lower()}{what[1:]}", "TOML 1.0")


class _Lines:
    """Walks a syntax tree and notes the line of each key and list item."""

    def __init__(self, lines: dict[Key, int]) -> None:
        self._lines = lines
        self._items: dict[Key, int] = {}  # how many [[tables]] each array has so far

    def document(self, root: Node) -> None:
        for node in root.children:
            match node.type:
                case "pair":
                    self._pair(node, ())
                case "table":
                    self._table(node, self._header(node))
                case "table_array_element":
                    key = self._header(node)
                    index = self._items[key] = self._items.get(key, -1) + 1
                    self._lines.setdefault(key, _line(node))
                    self._table(node, (*key, index))

    def _header(self, node: Node) -> Key:
        """The path of a [header], through the last item of each array of tables that it names."""
        parts = _key(node.named_children[0])
        key: Key = ()
        for place, part in enumerate(parts, 1):
            key = (*key, part)
            if place < len(parts) and key in self._items:
                key = (*key, self._items[key])
        return key

    def _table(self, node: Node, key: Key) -> None:
        self._lines[key] = _line(node)
        for child in node.children:
            if child.type == "pair":
                self._pair(child, key)

    def _pair(self, node: Node, within: Key) -> None:
        name, value = node.named_children[0], node.named_children[-1]
        key = within
        for part in _key(name):
            key = (*key, part)
            self._lines.setdefault(key, _line(node))
        self._value(value, key)

    def _value(self, node: Node, key: Key) -> None:
        if node.type == "inline_table":
            for child in node.children:
                if child.type == "pair":
                    self._pair(child, key)
        elif node.type == "array":
            items = [child for child in node.named_children if child.type != "comment"]
            for index, child in enumerate(items):
                self._lines[(*key, index)] = _line(child)
                self._value(child, (*key, index))


def _key(node: Node) -> list[str]:
    if node.type == "dotted_key":
        return [part for child in node.named_children for part in _key(child)]
    text = (node.text or b"").decode()
    return list(tomllib.loads(f"{text} = 0")) if node.type == "quoted_key" else [text]


def _line(node: Node) -> int:
    return node.start_point.row + 1
