"""Keeps the secrets that an action was given out of everything it says: logs, output, errors, messages, metadata."""

from __future__ import annotations

import json
import logging
import re
import sys
from collections.abc import Mapping, MutableMapping
from typing import Any
from urllib.parse import quote, quote_plus

from .results import Logger

MASK = "***"
SHORTEST = 4  # masking "1" or "on" would leave nothing readable, and hides nothing that is hard to guess

# What PostgreSQL, JSON in UTF-8 or a terminal would choke on.
_UNSAFE = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff]")


class Masker:
    """Replaces every registered value by `***`, also as JSON or a URL would spell it.

    A value of several lines is masked line by line too. Values shorter than four characters are not masked.
    """

    def __init__(self) -> None:
        self._values: set[str] = set()
        self._pattern: re.Pattern[str] | None = None

    def add(self, value: str) -> None:
        """Mask `value` from now on."""
        for part in (value, *value.splitlines()):
            for form in (part, json.dumps(part)[1:-1], json.dumps(part, ensure_ascii=False)[1:-1]):
                self._add(form)
            try:
                self._add(quote(part, safe=""))
                self._add(quote_plus(part))
            except UnicodeEncodeError:  # lone surrogates cannot stand in a URL
                pass
        # Longest first: of two values that start alike, the longer one is meant.
        forms = sorted(self._values, key=len, reverse=True)
        self._pattern = re.compile("|".join(map(re.escape, forms))) if forms else None

    def _add(self, form: str) -> None:
        if len(form.strip()) >= SHORTEST:
            self._values.add(form)

    def mask(self, text: str) -> str:
        """`text` with every registered value replaced."""
        return self._pattern.sub(MASK, text) if self._pattern else text

    def mask_all(self, value: Any) -> Any:
        """`value` (JSON) with all its strings masked, keys too, and free of characters that a database refuses."""
        match value:
            case str():
                return clean(self.mask(value))
            case Mapping():
                return {self.mask_all(key): self.mask_all(item) for key, item in value.items()}
            case list() | tuple():
                return [self.mask_all(item) for item in value]
            case _:
                return value

    def stream(self) -> MaskStream:
        """A masker for text that arrives in pieces: their joined output is what `mask` makes of the whole."""
        return MaskStream(self)

    def _split(self, text: str) -> tuple[str, str]:
        """What of `text` is safe to say whatever follows, masked, and the rest: it may be the start of a value."""
        if self._pattern is None:
            return text, ""
        said, at = [], 0
        while True:
            found = self._pattern.search(text, at)
            held = self._start_of_value(text, at)
            if found is None or found.start() >= held:
                said.append(text[at:held])
                return "".join(said), text[held:]
            said += [text[at : found.start()], MASK]
            at = found.end()

    def _start_of_value(self, text: str, at: int) -> int:
        longest = max(map(len, self._values))
        for start in range(max(at, len(text) - longest + 1), len(text)):
            rest = text[start:]
            if any(len(value) > len(rest) and value.startswith(rest) for value in self._values):
                return start
        return len(text)


class MaskStream:
    """See `Masker.stream`."""

    def __init__(self, masker: Masker) -> None:
        self._masker = masker
        self._held = ""

    def feed(self, text: str) -> str:
        """Take the next piece, and return what can be said by now."""
        said, self._held = self._masker._split(self._held + text)
        return said

    def close(self) -> str:
        """The rest: nothing more comes."""
        said, self._held = self._masker.mask(self._held), ""
        return said


class MaskedLogger(logging.LoggerAdapter[Any]):
    """A logger whose messages and tracebacks are masked before any handler sees them."""

    def __init__(self, logger: Logger, masker: Masker) -> None:
        super().__init__(logger, {})
        self._masker = masker

    def log(self, level: int, msg: object, *args: object, **kwargs: Any) -> None:
        """Log one masked line; `exc_info` becomes masked text."""
        if not self.isEnabledFor(level):
            return
        try:
            text = logging.LogRecord("", level, "", 0, msg, args, None).getMessage()
        except (TypeError, ValueError, KeyError):  # as in logging itself, a wrong format is no reason to fail
            text = f"{msg} {args}"
        exc_info = kwargs.pop("exc_info", None)
        if exc_info:
            if isinstance(exc_info, BaseException):
                exc_info = (type(exc_info), exc_info, exc_info.__traceback__)
            elif not isinstance(exc_info, tuple):
                exc_info = sys.exc_info()
            text = f"{text}\n{logging.Formatter().formatException(exc_info)}"
        # The arguments are in the text by now: a "%" in it means itself.
        self.logger.log(level, "%s", clean(self._masker.mask(text)), **kwargs)

    def process(self, msg: Any, kwargs: MutableMapping[str, Any]) -> tuple[Any, MutableMapping[str, Any]]:
        """Leave the adapters below to add what they add."""
        return msg, kwargs


def clean(text: str) -> str:
    """`text` without control characters (but tab, newline, return) and lone surrogates: they become U+FFFD."""
    return _UNSAFE.sub("\ufffd", text)
