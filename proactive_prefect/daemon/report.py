"""What `proactive up` says while it works: a line for each step that is done, and on a terminal what it waits for."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

from rich.console import Console
from rich.status import Status


class Step:
    """One step under way. `detail` is added to its line when it is done."""

    def __init__(self) -> None:
        self.detail = ""


class Report:
    """Lines for people. A terminal that has gone away (SIGHUP) silences it; it never raises."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self._began = time.monotonic()
        self._under_way: list[str] = []
        self._status: Status | None = None

    def say(self, text: str, *, style: str = "") -> None:
        """One line."""
        with contextlib.suppress(OSError, ValueError):
            self.console.print(text, style=style or None, markup=False, highlight=False, soft_wrap=True)

    @contextlib.contextmanager
    def step(self, what: str) -> Iterator[Step]:
        """A step with a name; several may be under way at once. Says how long it took when it is done."""
        step, began = Step(), time.monotonic()
        self._under_way.append(what)
        self._show()
        try:
            yield step
        finally:
            self._under_way.remove(what)
            self._show()
        mark = "✓ " if self.console.is_terminal else ""
        detail = f": {step.detail}" if step.detail else ""
        self.say(f"{mark}{what}{detail} ({time.monotonic() - began:.1f} s)")

    @property
    def elapsed(self) -> float:
        """Seconds since this report began."""
        return time.monotonic() - self._began

    def _show(self) -> None:
        if not self.console.is_terminal:
            return
        with contextlib.suppress(OSError, ValueError):
            if not self._under_way:
                if self._status is not None:
                    self._status.stop()
                    self._status = None
                return
            text = "starting: " + ", ".join(self._under_way)
            if self._status is None:
                self._status = self.console.status(text)
                self._status.start()
            else:
                self._status.update(text)
