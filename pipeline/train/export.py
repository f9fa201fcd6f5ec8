"""The trained policy as a transformers folder."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import cast

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from transformers.utils import logging as transformers_logging

from pipeline.models.load import load_tokenizer
from pipeline.models.logps import LogProbModel
from pipeline.models.manifest import Manifest


def export_policy(policy: LogProbModel, dtype: torch.dtype, start: Manifest, folder: Path) -> None:
    """Write weights (safetensors), config, generation config and tokenizer with its chat template to a fresh folder.

    The weights have the training dtype: in bfloat16 they are exactly those that the forward passes used. Every process
    must call it.
    """
    options = StateDictOptions(full_state_dict=True, cpu_offload=True)
    gathered = cast(dict[str, Tensor], get_model_state_dict(policy, options=options))
    if dist.get_rank() == 0:
        shutil.rmtree(folder, ignore_errors=True)
        model = policy.model
        # A tied weight has several names; the file holds it under the first.
        first = {name for name, _ in model.named_parameters()}
        tied = {name for name, _ in model.named_parameters(remove_duplicate=False)} - first
        weights = {name.removeprefix("model."): value for name, value in gathered.items()}
        kept = {name: _as_dtype(value, dtype) for name, value in weights.items() if name not in tied}
        with _no_progress_bar():
            model.save_pretrained(folder, state_dict=kept)
        model.config.dtype = dtype
        model.config.save_pretrained(folder)
        tokenizer = load_tokenizer(start)
        if start.chat_template is not None:
            tokenizer.chat_template = start.chat_template
        tokenizer.save_pretrained(folder)
        for file in folder.iterdir():
            file.chmod(0o644)  # safetensors leaves its files to their owner alone
    dist.barrier()


def _as_dtype(value: Tensor, dtype: torch.dtype) -> Tensor:
    return value.to(dtype) if value.is_floating_point() else value


@contextmanager
def _no_progress_bar() -> Iterator[None]:
    shown = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            transformers_logging.enable_progress_bar()
