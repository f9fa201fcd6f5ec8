"""Training in a process that kills itself with SIGKILL at a chosen moment; imported by the fork server of test_kill."""

import os
import signal
from collections.abc import Callable
from typing import Any

import torch

from pipeline.train import checkpoint, export, run
from pipeline.train.learner import Learner
from pipeline.train.run import Job, run_training

MOMENTS = (
    "first backward",
    "before the fourth step",
    "while the second checkpoint's weights are written",
    "before the second checkpoint's state",
    "before the second checkpoint's name",
    "before old checkpoints are removed",
    "before the policy is written",
    "while the policy is written",
)


def train_and_die(job: Job, moment: str) -> None:
    """Run a job; it does not come to its end."""
    torch.set_num_threads(1)
    _arm(moment)
    run_training(job)


def train(job: Job) -> None:
    """Run a job to its end."""
    torch.set_num_threads(1)
    run_training(job)


def _arm(moment: str) -> None:
    owner, name, call = {
        "first backward": (torch.Tensor, "backward", 1),
        "before the fourth step": (Learner, "step", 4),
        "while the second checkpoint's weights are written": (checkpoint.dcp.FileSystemWriter, "finish", 2),
        "before the second checkpoint's state": (checkpoint, "write_json", 2),
        # Every checkpoint syncs its own folder and the one above.
        "before the second checkpoint's name": (checkpoint, "sync_folder", 3),
        "before old checkpoints are removed": (checkpoint.Checkpoints, "_prune", 3),
        "before the policy is written": (run, "export_policy", 1),
        "while the policy is written": (export, "load_tokenizer", 1),
    }[moment]
    setattr(owner, name, _deadly(getattr(owner, name), call))


def _deadly(function: Callable[..., Any], call: int) -> Callable[..., Any]:
    calls: list[None] = []

    def wrapped(*args: Any, **options: Any) -> Any:
        calls.append(None)
        if len(calls) == call:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*args, **options)

    return wrapped
