"""What all processes that one of ours starts have in common: they end with it, and share the machine's cores."""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1
# Loaded here, because little is allowed between fork and exec, where `die_with_parent` may run.
_LIBC = ctypes.CDLL(None)


def die_with_parent() -> None:
    """Let the kernel kill this process when its parent is killed (Linux), so that no orphan goes on writing."""
    if sys.platform == "linux":
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def fair_threads(processes: int) -> int:
    """CPU threads of each of so many processes: their equal share of the cores that this process may use."""
    cores = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    return max(1, cores // processes)
