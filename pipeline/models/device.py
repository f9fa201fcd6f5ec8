"""Where a model runs."""

from typing import Literal

import torch

from pipeline.errors import ConfigError


def choose_device(name: Literal["auto", "cpu", "cuda"], threads: int | None = None) -> torch.device:
    """The device that `runtime.device` names; `auto`: CUDA where there is one. Sets torch's CPU threads.

    Raises ConfigError when CUDA is asked for and not there.
    """
    if threads is not None:
        torch.set_num_threads(threads)
    if name == "cuda" and not torch.cuda.is_available():
        raise ConfigError(
            "runtime.device: cuda is not available to this torch; set `auto` or `cpu`, or install its CUDA build"
        )
    return torch.device("cuda" if name != "cpu" and torch.cuda.is_available() else "cpu")
