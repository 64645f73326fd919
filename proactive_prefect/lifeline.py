"""Processes that end with the one that started them, whatever way that ends: also by kill -9.

Linux only (`prctl(2)`); elsewhere this does nothing, and what remains is ended at the next start. Standard library
only: `firing/keeper.py` imports it without the package.
"""

from __future__ import annotations

import ctypes
import signal
import sys

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
# Loaded before any fork: loading a library between fork and exec may wait for a lock that nobody will free.
_LIBC = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None


def die_with_parent() -> None:
    """In a child: have the kernel kill it when its parent dies. Fit for `subprocess.Popen(preexec_fn=…)`."""
    if _LIBC is not None:
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def adopt_orphans() -> None:
    """Become the parent of every process below whose own parent dies, so that none of them gets out of sight."""
    if _LIBC is not None:
        _LIBC.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
