"""How many inputs the tests of this folder have tried, by what they were for; told at the end of a test run."""

from __future__ import annotations

from collections import Counter

TRIED: Counter[str] = Counter()
