"""Processes that end with the one that started them, whatever way that ends: also by kill -9.

Linux only (`prctl(2)`, PR_SET_PDEATHSIG); elsewhere this does nothing, and what remains is ended at the next start.
"""

from __future__ import annotations

import ctypes
import signal
import sys

_PR_SET_PDEATHSIG = 1
# Loaded before any fork: loading a library between fork and exec may wait for a lock that nobody will free.
_LIBC = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None


def die_with_parent() -> None:
    """In a child: have the kernel kill it when its parent dies. Fit for `subprocess.Popen(preexec_fn=…)`."""
    if _LIBC is not None:
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
