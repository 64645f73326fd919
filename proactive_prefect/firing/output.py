"""What a program prints: streamed to the run's log as lines, and its end kept; bounded, with secrets masked."""

from __future__ import annotations

import codecs
from collections.abc import Callable

from .masking import Masker, clean

KEPT = 64 * 1024  # characters of a stream that are kept: its end
LOGGED = 64 * 1024  # characters of a stream that go to the log: its start
LONGEST_LINE = 4 * 1024


class Output:
    """One stream of a program. `total` is how many bytes it had; `text()` its end, of at most `KEPT` characters."""

    def __init__(self, name: str, masker: Masker, log: Callable[[str], None]) -> None:
        self.name = name
        self.total = 0
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._masks = masker.stream()
        self._log = log
        self._log_left = LOGGED
        self._line = ""
        self._line_length = 0
        self._tail = ""
        self._characters = 0

    def feed(self, chunk: bytes) -> None:
        """Take the next bytes."""
        self.total += len(chunk)
        self._take(self._masks.feed(self._decoder.decode(chunk)))

    def close(self) -> None:
        """Nothing more comes."""
        self._take(self._masks.feed(self._decoder.decode(b"", final=True)) + self._masks.close())
        if self._line_length:
            self._end_line()

    @property
    def cut(self) -> bool:
        """Whether `text()` is only the end of it."""
        return self._characters > KEPT

    def text(self) -> str:
        """The end of the stream; where something is left out, a first line says so."""
        tail = self._tail[-KEPT:]
        return f"… (the last {KEPT // 1024} KiB of {self.total:,} bytes)\n{tail}" if self.cut else tail

    def last_lines(self, count: int) -> str:
        """The last `count` lines that are not empty, as one line."""
        lines = [line.strip() for line in self._tail[-KEPT:].splitlines() if line.strip()]
        return " / ".join(lines[-count:])[-1000:]

    def _take(self, text: str) -> None:
        text = clean(text)
        self._characters += len(text)
        self._tail += text
        if len(self._tail) > 2 * KEPT:
            self._tail = self._tail[-KEPT:]
        if self._log_left <= 0:
            return
        *whole, rest = text.split("\n")
        for piece in whole:
            self._grow_line(piece)
            self._end_line()
        self._grow_line(rest)

    def _grow_line(self, piece: str) -> None:
        self._line += piece[: LONGEST_LINE - len(self._line)]
        self._line_length += len(piece)

    def _end_line(self) -> None:
        line, left_out = self._line.rstrip("\r"), self._line_length - len(self._line)
        self._line, self._line_length = "", 0
        if self._log_left <= 0 or not line:
            return
        self._log_left -= len(line)
        self._log(f"{line} … ({left_out} more characters)" if left_out else line)
        if self._log_left <= 0:
            self._log(f"… ({self.name} goes on; what follows is not logged, its last {KEPT // 1024} KiB are kept)")
