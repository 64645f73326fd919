"""Names of the states in which our runs end or wait, beside Prefect's own. They are part of the contract."""

from __future__ import annotations

from typing import Final

QUIET: Final = "Quiet"  # completed, and nothing to say
SKIPPED: Final = "Skipped"  # cancelled by a condition
MISSED: Final = "Missed"  # paused until somebody decides
TIMED_OUT: Final = "TimedOut"  # failed at its time limit; Prefect's own name
