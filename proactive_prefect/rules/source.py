"""A rules file as plain values that know the line they stand on: TOML, YAML or JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import ConfigError, Mistake

Key = tuple[str | int, ...]
MAX_BYTES = 2 * 1024 * 1024
SUFFIXES = (".toml", ".yaml", ".yml", ".json")


@dataclass(frozen=True)
class Source:
    """`data` is the file's top table. `lines` has the line (from 1) of each key and list item, by its path."""

    file: str
    data: dict[str, Any]
    lines: Mapping[Key, int]
    mistakes: tuple[Mistake, ...] = ()

    def line(self, key: Key) -> int:
        """The line of `key`, or of the nearest thing around it that has one; 0 for the file itself."""
        while key and key not in self.lines:
            key = key[:-1]
        return self.lines.get(key, 0)


def load_source(path: Path) -> Source:
    """Read the file at `path`. Raises ConfigError where there is none, or where it cannot be parsed at all."""
    if path.suffix.lower() not in SUFFIXES:
        raise _unreadable(path, f"the name ends in {path.suffix!r}", "a file that ends in " + ", ".join(SUFFIXES))
    return parse_source(_read(path), path.suffix.lower(), str(path))


def parse_source(text: str, suffix: str, file: str) -> Source:
    """Parse `text` as what `suffix` says (one of SUFFIXES). Raises ConfigError with the first syntax error."""
    from .toml_source import parse_toml
    from .yaml_source import parse_json, parse_yaml

    parse = {".toml": parse_toml, ".json": parse_json}.get(suffix, parse_yaml)
    try:
        data, lines, mistakes = parse(text)
    except SyntaxMistake as problem:
        raise ConfigError(file, [problem.mistake]) from None
    except RecursionError:
        raise ConfigError(file, [Mistake(0, "", "is nested too deeply", "at most a few hundred levels")]) from None
    if not isinstance(data, dict):
        raise ConfigError(file, [Mistake(1, "", f"holds {kind_of(data)}", "a table of keys, such as proactive")])
    return Source(file, data, lines, tuple(mistakes))


class SyntaxMistake(Exception):
    """The text cannot be parsed; `mistake` says where and why."""

    def __init__(self, line: int, found: str, allowed: str) -> None:
        super().__init__(found)
        self.mistake = Mistake(line, "", found, allowed)


def kind_of(value: Any) -> str:
    """What `value` is, in the words of a rules file."""
    match value:
        case None:
            return "nothing"
        case bool():
            return "true or false"
        case int() | float():
            return "a number"
        case str():
            return "text"
        case list():
            return "a list"
        case dict():
            return "a table"
        case _:
            return "a date or time"


def key_path(key: Key) -> str:
    """`("heartbeat", 2, "action", "call")` as "heartbeat[2].action.call"."""
    text = ""
    for part in key:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def _read(path: Path) -> str:
    try:
        if not path.exists():
            raise _unreadable(path, "there is no such file", "a rules file; `proactive init` writes one")
        if not path.is_file():
            raise _unreadable(path, "is not a file", "a rules file")
        with path.open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
    except OSError as problem:
        raise _unreadable(path, f"cannot be read: {problem.strerror or problem}", "a file that may be read") from None
    if len(raw) > MAX_BYTES:
        raise _unreadable(path, f"is larger than {MAX_BYTES:,} bytes", "a smaller file")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as problem:
        line = raw.count(b"\n", 0, problem.start) + 1
        raise ConfigError(str(path), [Mistake(line, "", "is not UTF-8", "text in UTF-8")]) from None


def _unreadable(path: Path, found: str, allowed: str) -> ConfigError:
    return ConfigError(str(path), [Mistake(0, "", found, allowed)])
