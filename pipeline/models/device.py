"""Where a model runs."""

import logging
import os
from typing import Literal

import torch

from pipeline.errors import ConfigError
from pipeline.models.malloc import keep_freed_memory

_log = logging.getLogger(__name__)


def choose_device(name: Literal["auto", "cpu", "cuda"], threads: int | None = None) -> torch.device:
    """The device that `runtime.device` names; `auto`: CUDA where there is one. Sets torch's CPU threads, and on the CPU
    keeps freed memory.

    Raises ConfigError when CUDA is asked for and not there.
    """
    if threads is not None:
        torch.set_num_threads(threads)
    if name == "cuda" and not torch.cuda.is_available():
        raise ConfigError(
            "runtime.device: cuda is not available to this torch; set `auto` or `cpu`, or install its CUDA build"
        )
    if name == "cpu" or not torch.cuda.is_available():
        keep_freed_memory()
        return torch.device("cpu")
    return torch.device("cuda")


def worker_devices(workers: int | None, device: torch.device, each: int = 1) -> list[tuple[str, ...]]:
    """For each process of a stage, the names of its own CUDA devices, as CUDA_VISIBLE_DEVICES takes them.

    Args:
        workers: `runtime.workers`; none: as many as there are devices for, one on the CPU.
        device: its type decides; on the CPU no process has a device.
        each: devices of one process (`runtime.tensor_parallel` where the backend splits its model).

    More workers than devices share them in turn. Raises ConfigError where one process alone wants more than there are.
    """
    if device.type == "cpu":
        return [()] * (workers or 1)
    visible = _visible_devices()
    groups = [tuple(visible[first : first + each]) for first in range(0, len(visible) - each + 1, each)]
    if not groups:
        raise ConfigError(
            f"runtime.tensor_parallel: {each} needs as many CUDA devices; {len(visible)} are visible; lower it"
        )
    workers = workers or len(groups)
    if workers > len(groups):
        _log.warning(
            "runtime.workers: %d processes share %d CUDA device(s); each holds the model", workers, len(groups) * each
        )
    return [groups[rank % len(groups)] for rank in range(workers)]


def _visible_devices() -> list[str]:
    """Names of the devices that this process sees: numbers, or the ids that it was given itself."""
    # Asking for the number starts no CUDA context, so the launcher of workers takes no device memory.
    number = torch.cuda.device_count()
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    # CUDA sees the devices up to the first name that it does not know.
    return [name.strip() for name in given.split(",")][:number] if given else [str(index) for index in range(number)]
