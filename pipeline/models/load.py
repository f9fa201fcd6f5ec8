"""Loading what a manifest names: tokenizer, configuration, weights. Nothing is downloaded, nothing executed."""

from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)
from transformers.utils import logging as transformers_logging

from pipeline.errors import ModelError
from pipeline.models.manifest import Manifest

_LOCAL: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def load_tokenizer(manifest: Manifest) -> PreTrainedTokenizerFast:
    """The tokenizer.

    Raises ModelError when it cannot be loaded or has no fast backend: only that one knows the characters of a token.
    """
    try:
        tokenizer = AutoTokenizer.from_pretrained(manifest.path, **_LOCAL)
    except Exception as error:  # what the tokenizers library raises for a broken file has no narrower type
        raise ModelError(_failed(manifest, "tokenizer", error)) from error
    if not isinstance(tokenizer, PreTrainedTokenizerFast):
        raise ModelError(
            f"The {manifest.role} model's tokenizer ({type(tokenizer).__name__}) has no fast backend, so its tokens "
            "cannot be placed in the text; save it with a tokenizer.json."
        )
    return tokenizer


def load_config(manifest: Manifest) -> PretrainedConfig:
    """The model's configuration. Raises ModelError when it cannot be read."""
    try:
        return AutoConfig.from_pretrained(manifest.path, **_LOCAL)
    except (OSError, ValueError, StrictDataclassError) as error:
        raise ModelError(_failed(manifest, "configuration", error)) from error


def load_model(
    manifest: Manifest, dtype: str, device: str | torch.device, attn_implementation: str = "sdpa"
) -> PreTrainedModel:
    """The model in evaluation mode.

    Args:
        dtype: `float32`, `bfloat16` or `float16`: the type of weights and computation.

    Raises ModelError when weights are missing or do not fit: a layer is never left at its random start.
    """
    quiet = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    try:
        model, info = AutoModelForCausalLM.from_pretrained(
            manifest.path,
            dtype=_DTYPES[dtype],
            attn_implementation=attn_implementation,
            use_safetensors=True,
            output_loading_info=True,
            **_LOCAL,
        )
    except (OSError, ValueError, ImportError, RuntimeError, SafetensorError, StrictDataclassError) as error:
        raise ModelError(_failed(manifest, "weights", error)) from error
    finally:
        if quiet:
            transformers_logging.enable_progress_bar()
    if unset := sorted(str(key) for key in [*info["missing_keys"], *info["mismatched_keys"]]):
        raise ModelError(
            f"The {manifest.role} model's weights in {manifest.path} lack {len(unset)} parameters of its architecture "
            f"({unset[0]}, …) or hold them in another shape; the folder is not whole, or its config.json is of another "
            "model."
        )
    try:
        return model.to(device).eval()
    except torch.OutOfMemoryError as error:
        raise ModelError(
            f"The {manifest.role} model does not fit the memory of {device} in {dtype}; use a device with more memory, "
            "a smaller model, or bfloat16."
        ) from error


def context_length(config: PretrainedConfig) -> int:
    """Tokens that the model can read at once, the answer included. Raises ModelError when its config does not say."""
    text = config.get_text_config()
    for name in ("max_position_embeddings", "n_positions", "max_seq_len", "seq_length"):
        length = getattr(text, name, None)
        if isinstance(length, int) and length > 0:
            return length
    raise ModelError(
        f"config.json of a {config.model_type} model names no context length; set `max_position_embeddings` there."
    )


def _failed(manifest: Manifest, what: str, error: Exception) -> str:
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return f"The {what} of the {manifest.role} model in {manifest.path} cannot be loaded: {reason}"
