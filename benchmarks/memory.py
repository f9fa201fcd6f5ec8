"""How much memory a side of a benchmark holds at most."""

import ctypes
import gc
from pathlib import Path

import psutil
import torch

MIB = 2**20


class Memory:
    """The most memory held above a base: by the process (its high-water mark), or by the CUDA allocator.

    The base is what is held when the object is made: the loaded model, say.
    """

    def __init__(self, device: str) -> None:
        self._cuda = device == "cuda"
        give_back()
        self.base = torch.cuda.memory_allocated() if self._cuda else psutil.Process().memory_info().rss
        """Bytes."""

    def reset(self) -> None:
        """Forget the mark so far, and what the allocators hold unused."""
        give_back()
        if self._cuda:
            torch.cuda.reset_peak_memory_stats()
        else:
            Path("/proc/self/clear_refs").write_text("5")  # VmHWM := VmRSS

    def above_base(self) -> float:
        """MiB."""
        return self.peak() - self.base / MIB

    def peak(self) -> float:
        """MiB, the base included."""
        if self._cuda:
            return torch.cuda.max_memory_allocated() / MIB
        status = Path("/proc/self/status").read_text()
        return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")) / 1024


def give_back() -> None:
    """Collect garbage, and hand what the allocators hold unused to the system."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    ctypes.CDLL(None).malloc_trim(0)


def wait(device: str) -> None:
    """Until the device has done what it was given."""
    if device == "cuda":
        torch.cuda.synchronize()
