"""The trained policy as a folder that transformers and vLLM load: a whole model, or an adapter beside its start."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import cast

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from transformers import GenerationConfig, PreTrainedModel
from transformers.utils import logging as transformers_logging

from pipeline.config.train import LoraParams
from pipeline.models.load import load_tokenizer
from pipeline.models.logps import LogProbModel
from pipeline.models.manifest import Manifest
from pipeline.train.lora import merged_weights, write_adapter

_GENERATION = "generation_config.json"


def export_policy(
    policy: LogProbModel, dtype: torch.dtype, start: Manifest, folder: Path, lora: LoraParams | None = None
) -> None:
    """Write weights (safetensors), config, generation config and tokenizer with its chat template to a fresh folder.

    The weights have the training dtype: in bfloat16 they are exactly those that the forward passes used. With `lora`
    that is not to be merged the folder holds the adapter's float32 masters and names the start. Every process must call
    it.
    """
    adapter_only = lora is not None and not lora.merge
    options = StateDictOptions(full_state_dict=True, cpu_offload=True, ignore_frozen_params=adapter_only)
    gathered = cast(dict[str, Tensor], get_model_state_dict(policy, options=options))
    if dist.get_rank() == 0:
        shutil.rmtree(folder, ignore_errors=True)
        weights = {name.removeprefix("model."): value for name, value in gathered.items()}
        if adapter_only:
            write_adapter(folder, policy.model, weights, start)
        else:
            _write_model(folder, policy.model, merged_weights(weights, lora, dtype) if lora else weights, dtype)
        if (start.path / _GENERATION).is_file():
            shutil.copyfile(start.path / _GENERATION, folder / _GENERATION)
        tokenizer = load_tokenizer(start)
        if start.chat_template is not None:
            tokenizer.chat_template = start.chat_template
        tokenizer.save_pretrained(folder)
        for file in folder.iterdir():
            file.chmod(0o644)  # safetensors leaves its files to their owner alone
    dist.barrier()


def _write_model(folder: Path, model: PreTrainedModel, weights: dict[str, Tensor], dtype: torch.dtype) -> None:
    # A tied weight has several names; the file holds it under the first.
    first = {name for name, _ in model.named_parameters()}
    tied = {name for name, _ in model.named_parameters(remove_duplicate=False)} - first
    kept = {name: _as_dtype(value, dtype) for name, value in weights.items() if name not in tied}
    with _no_progress_bar(), _plain_generation(model):
        model.save_pretrained(folder, state_dict=kept)
    model.config.dtype = dtype
    model.config.save_pretrained(folder)


def _as_dtype(value: Tensor, dtype: torch.dtype) -> Tensor:
    return value.to(dtype) if value.is_floating_point() else value


@contextmanager
def _plain_generation(model: PreTrainedModel) -> Iterator[None]:
    """A generation config that transformers agrees to save: it refuses some that it loads, and models are published
    with such. The start's own file takes its place."""
    own = model.generation_config
    model.generation_config = GenerationConfig.from_model_config(model.config)
    try:
        yield
    finally:
        model.generation_config = own


@contextmanager
def _no_progress_bar() -> Iterator[None]:
    shown = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            transformers_logging.enable_progress_bar()
