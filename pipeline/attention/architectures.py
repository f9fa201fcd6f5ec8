"""Which judges the capture knows, and what their configs say: layers and rotary boundaries.

An architecture is listed after its attention was read in transformers and tested against eager attention. Everything
else is refused by name: a row computed by the wrong rule looks like any other row.
"""

from collections.abc import Sequence
from typing import Any

from transformers import PreTrainedModel

from pipeline.errors import ModelError
from pipeline.models.rope import longrope_boundaries
from pipeline.schemas.attention import MEAN_OVER_HEADS

SUPPORTED = {
    "llama": "LlamaForCausalLM",
    "mistral": "MistralForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
    "gemma2": "Gemma2ForCausalLM",
    "gemma3_text": "Gemma3ForCausalLM",
    "phi3": "Phi3ForCausalLM",
}
"""config.model_type -> the class whose attention was checked."""

_REMEDY = f"Supported: {', '.join(sorted(SUPPORTED))}; name such a judge in `model.judge`."
_LAYER_TYPES = {"full_attention", "sliding_attention"}


def check_architecture(config: Any) -> None:
    """Raise ModelError, naming the architecture and why, unless the capture computes its rows right."""
    name = config.model_type
    if name not in SUPPORTED:
        raise ModelError(f"attention rows of architecture `{name}` ({_why_not(config)}) are not supported. {_REMEDY}")
    if getattr(config, "use_bidirectional_attention", None) or not getattr(config, "is_causal", True):
        raise ModelError(f"architecture `{name}` with bidirectional attention is not supported. {_REMEDY}")
    other = set(getattr(config, "layer_types", None) or ()) - _LAYER_TYPES
    if other:
        raise ModelError(f"architecture `{name}` with layers of type {sorted(other)} is not supported. {_REMEDY}")


def check_model(model: PreTrainedModel) -> None:
    """`check_architecture`, and that the model is transformers' own causal language model of that architecture."""
    check_architecture(model.config)
    expected = SUPPORTED[model.config.model_type]
    if type(model).__name__ != expected:
        raise ModelError(f"the judge is a {type(model).__name__}, not transformers' {expected}. {_REMEDY}")


def resolve_layers(layers: Sequence[int], num_layers: int) -> tuple[int, ...]:
    """0-based layers in ascending order, each once; negative ones count from the last.

    Raises ModelError naming `extract.layers` when there is none or the model lacks one.
    """
    if not layers:
        raise ModelError("`extract.layers` is empty; name at least one layer, for example [-1] for the last")
    outside = [layer for layer in layers if not -num_layers <= layer < num_layers]
    if outside:
        raise ModelError(
            f"`extract.layers` asks for {outside}, but the judge has {num_layers} layers: "
            f"0 to {num_layers - 1}, or -{num_layers} to -1 counted from the last"
        )
    return tuple(sorted({layer % num_layers for layer in layers}))


def resolve_heads(heads: Sequence[int] | str, num_heads: int) -> tuple[int, ...]:
    """0-based query heads in ascending order; (MEAN_OVER_HEADS,) for `mean`, all of them for `each`.

    Raises ModelError naming `extract.heads` when the model lacks one.
    """
    if heads == "mean":
        return (MEAN_OVER_HEADS,)
    if heads == "each":
        return tuple(range(num_heads))
    wanted = sorted({int(head) for head in heads})
    outside = [head for head in wanted if not 0 <= head < num_heads]
    if outside or not wanted:
        raise ModelError(
            f"`extract.heads` asks for {outside or 'none'}, but the judge's layers have {num_heads} heads: "
            f"0 to {num_heads - 1}"
        )
    return tuple(wanted)


def why_not_shared(config: Any, longest: int) -> str | None:
    """Why prompts of up to `longest` tokens cannot share their prefixes' keys and values; None if they can.

    Shared prefixes are attended to whole, by the frequencies of the shortest prompt.
    """
    window = getattr(config, "sliding_window", None)
    slides = "sliding_attention" in (getattr(config, "layer_types", None) or ["sliding_attention"])
    if window and slides and getattr(config, "use_sliding_window", True) and longest > window:
        return f"the judge's sliding window of {window} is shorter than a prompt of {longest} tokens"
    if any(longest > boundary for boundary in longrope_boundaries(config)):
        return f"the judge rotates prompts of {longest} tokens by other frequencies than shorter ones (longrope)"
    return None


def _why_not(config: Any) -> str:
    if config.model_type == "gpt_oss":
        return "attention sinks"
    if config.model_type in ("bloom", "mpt") or getattr(config, "alibi", False):
        return "ALiBi"
    if getattr(config, "kv_lora_rank", None) is not None:
        return "multi-head latent attention"
    if getattr(config, "num_kv_shared_layers", None):
        return "layers that share keys"
    if getattr(config, "attention_chunk_size", None) is not None:
        return "chunked attention"
    return "its attention has not been checked"
