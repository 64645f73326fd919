"""How much Prefect is given at once: more while it takes it, half as much when it does not (AIMD).

Prefect has two ways to refuse. It is away, or its server is at its end: then less, and later. Or its embedded database
was locked, for a moment: a transaction of Prefect's that creates runs reads before it writes, and SQLite lets it write
only if nobody else has written in between. Workers that start and end runs write all the time, and wait in line for it,
so who creates runs finds a gap only by asking again and again, soon: who waits ever longer starves.

Two things adapt. `calls` is how many calls may be under way: the embedded server's database has one writer, and a
second one only makes it answer 503, while one on PostgreSQL bears many; nobody has to know which one it is. `size` is
how many runs one call creates: a burst costs few transactions, and others get their turns.
"""

from __future__ import annotations

import random

# Each call costs Prefect a transaction, and on a busy machine it is the wait for that which takes long, not the runs:
# so never few runs in a call, and fewer only where a call is so long that others cannot write.
LEAST_RUNS, MOST_RUNS = 10, 100
_SHORT, _LONG = 2.0, 8.0  # seconds of a call
_MORE = 0.1  # of a call more, for each that went well
_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 15.0  # seconds


class Pace:
    """Pure: it knows no clock. `pause` is how many seconds to wait before the next call."""

    def __init__(self, most_calls: int) -> None:
        self.calls = 1.0
        self.size = 50.0
        self.pause = 0.0
        self._most_calls = most_calls

    def took(self, count: int, seconds: float) -> None:
        """Prefect took so many runs in a call of so many seconds."""
        self.calls = min(float(self._most_calls), self.calls + _MORE)
        self.pause = 0.0
        if seconds > _LONG:
            self.size = min(self.size, max(float(LEAST_RUNS), self.size / 2))
        elif seconds < _SHORT and count >= int(self.size):
            self.size = min(float(MOST_RUNS), self.size * 1.5)

    def refused(self, *, in_time: bool = True) -> None:
        """Prefect was too busy, or away: half as many calls, and not at once.

        One that did not answer `in_time` was asked for too much: nothing of it is left, so the next one asks for less.
        """
        self.calls = max(1.0, self.calls / 2)
        if not in_time:
            self.size = max(1.0, self.size / 2)
        self.pause = min(_LONGEST_PAUSE, max(_FIRST_PAUSE, self.pause * 2))

    def locked(self) -> None:
        """Prefect's database was locked: one call at a time, or ours lock out each other."""
        self.calls = 1.0

    def wait(self) -> float:
        """The pause, with a spread, so that several gateways do not come back together."""
        return self.pause * random.uniform(0.5, 1.0)  # noqa: S311 - a spread, no secret
