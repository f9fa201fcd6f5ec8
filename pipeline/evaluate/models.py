"""The trained policy as a model to load: a folder without a manifest of its own."""

import warnings
from dataclasses import replace
from pathlib import Path

import torch
from peft import PeftModel
from safetensors import SafetensorError
from transformers import PreTrainedModel

from pipeline.errors import ModelError
from pipeline.models.load import load_model
from pipeline.models.manifest import Manifest
from pipeline.train.lora import CONFIG_FILE, WEIGHTS_FILE


def load_policy(folder: Path, start: Manifest, dtype: str, device: torch.device) -> PreTrainedModel:
    """The policy in `folder`: a whole model, or the start with an adapter beside it, computed as in training.

    Raises ModelError when training has left no model there, or its adapter is not one of this start.
    """
    if not (folder / CONFIG_FILE).is_file():
        return load_model(policy_manifest(folder, start), dtype, device)
    model = load_model(start, dtype, device)
    try:
        if not (folder / WEIGHTS_FILE).is_file():
            raise ModelError(f"{folder} holds no {WEIGHTS_FILE}; train it again with `dvc repro -f train`")
        with warnings.catch_warnings():
            # A weight left at its beginning would be a wrong policy that looks like a right one.
            warnings.filterwarnings("error", message="Found missing adapter keys")
            # In the base's dtype: as the forward passes of training used them.
            adapted = PeftModel.from_pretrained(
                model, folder, autocast_adapter_dtype=False, torch_device=str(device), local_files_only=True
            )
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError, UserWarning) as error:
        reason = " ".join(str(error).split())[:200].rstrip(".") or type(error).__name__
        raise ModelError(
            f"{folder}: the adapter does not fit the start in {start.path}: {reason}. Train it again with `dvc repro -f"
            " train`"
        ) from error
    whole: PreTrainedModel = adapted.get_base_model()
    return whole.eval()


def policy_manifest(folder: Path, start: Manifest) -> Manifest:
    """The whole policy in `folder`, which has the start's tokenizer and chat template.

    Raises ModelError when training has left no model there.
    """
    if not (folder / "config.json").is_file():
        raise ModelError(f"{folder} holds no model; train it with `dvc repro train`")
    return replace(start, role="trained", source="folder", path=folder, repo=None, revision=None, files={}, sizes={})
