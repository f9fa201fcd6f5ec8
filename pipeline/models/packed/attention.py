"""How a packed row attends: every implementation keeps its sequences apart, and says what it cannot do.

`segments`: this module's, sequence by sequence through scaled_dot_product_attention (on CUDA its flash kernels), with
shared prompts, sliding windows and soft-caps; nothing of size N×N exists. The others are those of transformers.
"""

from collections.abc import Sequence
from importlib.util import find_spec
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel
from transformers.modeling_utils import AttentionInterface

from pipeline.errors import ConfigError, ModelError
from pipeline.models.packed.causal import CausalAttention
from pipeline.models.packed.layout import PackedRow, Segment
from pipeline.models.packed.masks import block_mask, dense_mask

SEGMENTS = "packed_segments"
"""The name under which transformers calls this module. No mask is registered beside it, so transformers makes none."""
IMPLEMENTATIONS = ("segments", "sdpa", "flash_attention_2", "flex_attention")


class PackedAttention:
    """Sets a model to one implementation, and gives each forward pass over a row what that wants.

    Raises ConfigError, naming `runtime.attention`, where model or machine lack what the implementation needs.
    """

    def __init__(self, model: PreTrainedModel, implementation: str) -> None:
        self._implementation = implementation
        self._windows = _windows(model.config)
        self._causal = CausalAttention()
        if reason := _why_not(model, implementation):
            raise ConfigError(f"runtime.attention: {implementation} {reason}; set `segments`")
        model.set_attn_implementation(SEGMENTS if implementation == "segments" else implementation)

    def arguments(self, row: PackedRow) -> dict[str, Any]:
        """Keyword arguments of the model's body beside ids and positions."""
        if self._implementation == "segments":
            return {"segments": row.segments, "causal": self._causal}
        if all(segment.prefix[0] == segment.prefix[1] for segment in row.segments):
            # Positions that restart tell transformers where sequences begin, but only without mask and cache.
            return {}
        if self._implementation == "flash_attention_2":
            raise ConfigError(
                "runtime.attention: flash_attention_2 has no shared prompts; set runtime.share_prompts: false, or"
                " `segments`"
            )
        if any(row.longest > window for window in self._windows):
            raise ConfigError(
                f"runtime.attention: {self._implementation} has no shared prompts beyond the model's sliding window of"
                f" {min(self._windows)}; set runtime.share_prompts: false, or `segments`"
            )
        make = dense_mask if self._implementation == "sdpa" else block_mask
        return {"attention_mask": make(row)}


@torch.compiler.disable
def packed_segments(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    segments: Sequence[Segment],
    causal: CausalAttention,
    scaling: float | None = None,
    softcap: float | None = None,
    sliding_window: int | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """An attention function in the sense of transformers' AttentionInterface.

    query[1, H, N, d], key and value [1, Hkv, N, d]; the output is [1, N, H, d]. Differentiable. Never compiled: no two
    rows have the same segments, and each would be compiled anew.
    """
    biases = sorted(name for name in ("s_aux", "position_bias") if kwargs.get(name) is not None)
    if biases or attention_mask is not None:
        what = f"adds {biases} to its attention scores" if biases else "brought a mask"
        raise ModelError(f"{type(module).__name__} {what}, which packed sequences have no use for")
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling

    def attend(queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        return causal(queries, keys, values, scale, softcap, sliding_window).transpose(1, 2)

    # Pieces by `split`, whose backward pass is one concatenation; every slice would make a gradient of all N.
    queries = query.split([segment.stop - segment.start for segment in segments], dim=2)
    keys, values = _Pieces(key, segments), _Pieces(value, segments)
    outputs = []
    for own, segment in zip(queries, segments, strict=True):
        states = own, keys.of(segment), values.of(segment)
        if softcap is not None and torch.is_grad_enabled():
            # Its scores exist, block by block: they are computed again instead of kept.
            outputs.append(checkpoint(attend, *states, use_reentrant=False, preserve_rng_state=False))
        else:
            outputs.append(attend(*states))
    return torch.cat(outputs, dim=1), None


class _Pieces:
    """Keys or values [1, Hkv, N, d], cut at the borders of segments and of the prompts that others share."""

    def __init__(self, states: Tensor, segments: Sequence[Segment]) -> None:
        borders = sorted({0, *(border for segment in segments for border in (*segment.prefix, segment.stop))})
        sizes = [after - before for before, after in pairwise(borders)]
        self._places = {border: number for number, border in enumerate(borders)}
        self._pieces = states.split(sizes, dim=2)

    def of(self, segment: Segment) -> Tensor:
        """What a segment sees: its prefix, then its own."""
        ranges = (segment.prefix, (segment.start, segment.stop))
        seen = [piece for start, stop in ranges for piece in self._pieces[self._places[start] : self._places[stop]]]
        return seen[0] if len(seen) == 1 else torch.cat(seen, dim=2)


def _windows(config: Any) -> list[int]:
    """The model's sliding window, if it has one."""
    types = getattr(config, "layer_types", None) or ["sliding_attention"]
    window = getattr(config, "sliding_window", None)
    return [window] if window and "sliding_attention" in types else []


def _why_not(model: PreTrainedModel, implementation: str) -> str | None:
    if implementation == "segments":
        return None
    if implementation == "sdpa":
        capped = getattr(model.config, "attn_logit_softcapping", None)
        return "drops the soft-cap of this model's attention scores" if capped else None
    if model.device.type != "cuda":
        return "needs a CUDA device to train on"
    if implementation == "flash_attention_2" and find_spec("flash_attn") is None:
        return "needs the package flash-attn, which is not installed"
    return None


AttentionInterface.register(SEGMENTS, packed_segments)
