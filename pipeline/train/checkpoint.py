"""Checkpoints of a training run: whole or absent, the newest few and the best one kept.

`folder/step-00000500/` holds model and optimizer (torch.distributed.checkpoint, readable by any number of processes)
and `state.json`. Frozen weights are not in it: they are the start's. It is written under another name, synced and
renamed. The learning rate follows from the step, and every step seeds the random numbers anew, so neither needs to be
saved.
"""

import errno
import json
import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch import nn
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_state_dict,
    set_model_state_dict,
)
from torch.distributed.checkpoint.state_dict import set_state_dict as set_both

from pipeline.errors import CheckpointError
from pipeline.io.atomic import sync_folder, write_json

_NAME = re.compile(r"step-(\d{8})")
_WRAPPERS = ("_checkpoint_wrapped_module", "_orig_mod")
"""Parts of a parameter's name that torch leaves out of a state dict."""
# Weights that are not in a checkpoint stay as they are. One that should be is missed when the checkpoint is read.
_PARTIAL = StateDictOptions(strict=False)


@dataclass(frozen=True)
class Best:
    """The step whose validation figure was best so far."""

    step: int
    value: float


@dataclass
class TrainState:
    """Where a run is. `history`: one line per finished step, with every curve's value."""

    step: int = 0
    epoch: int = 0
    pairs_consumed: int = 0
    best: Best | None = None
    history: list[dict[str, float]] = field(default_factory=list)


class Checkpoints:
    """The checkpoints of one run.

    Args:
        depends: everything the run's result depends on, compared before any checkpoint is used.
        keep: how many of the newest stay, besides the best one.
    """

    def __init__(self, folder: Path, depends: Mapping[str, Any], keep: int = 2) -> None:
        self.folder = folder
        self.depends = dict(depends)
        self.keep = keep

    def steps(self) -> list[int]:
        """Steps of the whole checkpoints, in order."""
        if not self.folder.is_dir():
            return []
        found = (_NAME.fullmatch(item.name) for item in self.folder.iterdir())
        return sorted(int(match[1]) for match in found if match)

    def read_state(self, step: int) -> TrainState:
        """The state of a checkpoint. Raises CheckpointError when it is another run's, naming what differs."""
        path = self._path(step) / "state.json"
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            best = content["state"].pop("best")
            state = TrainState(best=Best(**best) if best else None, **content["state"])
            depends = content["depends"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise CheckpointError(f"{path}: not readable ({error}); remove {path.parent} and run again") from None
        if different := differences(depends, self.depends):
            raise CheckpointError(
                f"{path.parent}: a checkpoint of another run: {'; '.join(different)}. Remove {self.folder} to start"
                " anew, or restore what differs"
            )
        return state

    def save(self, model: nn.Module, optimizer: torch.optim.Optimizer, state: TrainState) -> None:
        """Write the checkpoint of `state.step`; every process must call it. Raises CheckpointError on a full disk."""
        fresh = self.folder / f".step-{state.step:08d}.tmp"
        if dist.get_rank() == 0:
            for left in self.folder.glob(".step-*.tmp"):
                shutil.rmtree(left)
            fresh.mkdir(parents=True)
        dist.barrier()
        weights, moments = get_state_dict(model, optimizer)
        try:
            # The writer syncs each file.
            dcp.save(
                {"model": _trained(model, weights), "optimizer": moments}, storage_writer=dcp.FileSystemWriter(fresh)
            )
            if dist.get_rank() == 0:
                write_json(fresh / "state.json", {"depends": self.depends, "state": asdict(state)})
                sync_folder(fresh)
                shutil.rmtree(self._path(state.step), ignore_errors=True)
                os.rename(fresh, self._path(state.step))
                sync_folder(self.folder)
                self._prune(state.best)
        except (OSError, CheckpointException) as error:
            raise CheckpointError(_cannot_write(self.folder, error)) from error
        dist.barrier()

    def load(self, step: int, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        """Put a checkpoint's weights and moments into model and optimizer; every process must call it."""
        weights, moments = get_state_dict(model, optimizer)
        weights = _trained(model, weights)
        self._read(step, {"model": weights, "optimizer": moments})
        set_both(model, optimizer, model_state_dict=weights, optim_state_dict=moments, options=_PARTIAL)

    def load_model(self, step: int, model: nn.Module) -> None:
        """Put a checkpoint's weights into the model; every process must call it."""
        weights = _trained(model, get_model_state_dict(model))
        self._read(step, {"model": weights})
        set_model_state_dict(model, weights, options=_PARTIAL)

    def _read(self, step: int, into: dict[str, Any]) -> None:
        try:
            dcp.load(into, storage_reader=dcp.FileSystemReader(self._path(step)))
        except (OSError, CheckpointException) as error:
            raise CheckpointError(
                f"{self._path(step)}: not readable ({type(error).__name__}); remove it to go on from an earlier one"
            ) from error

    def _prune(self, best: Best | None) -> None:
        kept = {*self.steps()[-self.keep :], *([best.step] if best else [])}
        for step in self.steps():
            if step not in kept:
                shutil.rmtree(self._path(step))

    def _path(self, step: int) -> Path:
        return self.folder / f"step-{step:08d}"


def _trained(model: nn.Module, weights: dict[str, Any]) -> dict[str, Any]:
    """A state dict without frozen weights. torch's own `ignore_frozen_params` leaves the second name of a tied one."""
    frozen = {
        ".".join(part for part in name.split(".") if part not in _WRAPPERS)
        for name, parameter in model.named_parameters(remove_duplicate=False)
        if not parameter.requires_grad
    }
    return {name: value for name, value in weights.items() if name not in frozen}


def differences(theirs: Any, ours: Any, path: str = "") -> list[str]:
    """What differs between two nested mappings, as `params.train.beta: 0.1 there, 0.2 here`."""
    if isinstance(theirs, Mapping) and isinstance(ours, Mapping):
        return [
            line
            for name in sorted({*theirs, *ours})
            for line in differences(theirs.get(name), ours.get(name), f"{path}.{name}" if path else name)
        ]
    return [] if theirs == ours else [f"{path}: {_short(theirs)} there, {_short(ours)} here"]


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:12]}…{text[-4:]}"


def _cannot_write(folder: Path, error: OSError | CheckpointException) -> str:
    causes = [error] if isinstance(error, OSError) else [cause for cause, _ in error.failures.values()]
    full = any(isinstance(cause, OSError) and cause.errno in (errno.ENOSPC, errno.EDQUOT) for cause in causes)
    what = f"the disk is full ({shutil.disk_usage(folder).free // 2**20} MiB free)" if full else f"{causes[0]}"
    return f"{folder}: a checkpoint could not be written: {what}; the earlier ones are whole: run again to go on there"
