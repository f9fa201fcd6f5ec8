"""What all processes that one of ours starts have in common: they end with it, share cores, have a peak."""

import ctypes
import os
import resource
import signal
import sys
from pathlib import Path

_PR_SET_PDEATHSIG = 1
# Loaded here, because little is allowed between fork and exec, where `die_with_parent` may run.
_LIBC = ctypes.CDLL(None)


def die_with_parent() -> None:
    """Let the kernel kill this process when its parent is killed (Linux), so that no orphan goes on writing."""
    if sys.platform == "linux":
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def peak_resident() -> int:
    """Bytes: the largest resident size of this process so far."""
    try:
        status = Path("/proc/self/status").read_text(encoding="ascii")
    except OSError:
        # Of whoever started this process too: it survives exec.
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")) * 1024


def fair_threads(processes: int) -> int:
    """CPU threads of each of so many processes: their equal share of the cores that this process may use."""
    cores = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    return max(1, cores // processes)
