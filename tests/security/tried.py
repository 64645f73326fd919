"""How many inputs the tests have tried, by what they were for; `tests/conftest.py` tells it at the end of a run."""

from __future__ import annotations

from collections import Counter

TRIED: Counter[str] = Counter()
