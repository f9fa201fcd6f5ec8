"""How query rows are taken out of a transformers model while it runs under SDPA.

transformers calls the attention of every layer through a registry of functions. The function registered here lets
SDPA compute the layer's output and, on the wanted layers, computes one row per sequence from the very query and key
states that the layer used: after projection, biases, q/k norms and rotary embedding, whatever the model class. No S×S
matrix of attention weights exists.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask
from transformers.modeling_utils import AttentionInterface

from pipeline.attention.forward.bounds import refuse_biases, went_around
from pipeline.attention.forward.path import LeftEarly
from pipeline.attention.row import attention_row, choose_heads
from pipeline.errors import ModelError
from pipeline.models.packed.softcap import softcapped_attention

IMPLEMENTATION = "query_row"


class Capture(Protocol):
    """What takes rows out of a running forward pass."""

    def record(
        self,
        layer: int,
        query: Tensor,
        key: Tensor,
        scale: float,
        *,
        softcap: float | None,
        window: int | None,
        mask: Tensor | None,
    ) -> None:
        """Called by every layer with the states that it attends with."""
        ...

    def rows(self) -> dict[int, list[Tensor]]:
        """After the pass: layer -> per sequence the rows [K, position + 1]."""
        ...


class RowCapture:
    """The rows of one forward pass: K heads per wanted layer and sequence, float32.

    `heads` as `resolve_heads` gives them; `positions[b]` is the query position of sequence b in the right-padded batch.
    A capture serves one forward pass.
    """

    def __init__(self, layers: Sequence[int], positions: Sequence[int], heads: Sequence[int]) -> None:
        self.layers = frozenset(layers)
        self.heads = tuple(heads)
        self.positions = tuple(positions)
        self._rows: dict[int, list[Tensor]] = {}

    def record(
        self,
        layer: int,
        query: Tensor,
        key: Tensor,
        scale: float,
        *,
        softcap: float | None,
        window: int | None,
        mask: Tensor | None,
    ) -> None:
        """Take the rows of one layer from query[B, H, S, d] and key[B, Hkv, S, d] and the mask that it ran with."""
        if layer not in self.layers:
            return
        if layer in self._rows:
            raise ModelError(f"layer {layer} ran twice in one forward pass; its query row would be ambiguous")
        if query.shape[0] != len(self.positions) or query.shape[2] != key.shape[2]:
            raise ModelError(
                f"layer {layer} saw queries {tuple(query.shape)} and keys {tuple(key.shape)}, not the "
                f"{len(self.positions)} whole sequences of this batch; capture runs without a key-value cache"
            )
        rows = []
        for sequence, position in enumerate(self.positions):
            length = position + 1
            check_mask(mask, sequence, length, key.shape[2], window, layer)
            keys = key[sequence, :, :length]
            row = attention_row(query[sequence, :, position], keys, scale, softcap=softcap, window=window)
            rows.append(choose_heads(row, self.heads))
        self._rows[layer] = rows

    def rows(self) -> dict[int, list[Tensor]]:
        """layer -> per sequence the rows [K, position + 1]. Raises ModelError if a wanted layer was not seen."""
        missing = sorted(self.layers - self._rows.keys())
        if missing:
            raise ModelError(went_around(missing))
        return {layer: self._rows[layer] for layer in sorted(self._rows)}


@contextmanager
def capturing(model: PreTrainedModel, implementation: str = IMPLEMENTATION) -> Iterator[None]:
    """Run the model's attention through this module, or another `implementation`, then restore the one it had.

    Inside, call the model's body with `row_capture=RowCapture(...)` and `use_cache=False`, and without an attention
    mask: padding is on the right, where a causal model's real positions never look, and without a mask SDPA may take
    its fast kernels.
    """
    before = model.config._attn_implementation
    model.set_attn_implementation(implementation)
    try:
        yield
    finally:
        model.set_attn_implementation(before)


def query_row_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    scaling: float | None = None,
    dropout: float = 0.0,
    softcap: float | None = None,
    sliding_window: int | None = None,
    row_capture: Capture | None = None,
    leave_after: int | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """An attention function in the sense of transformers' AttentionInterface: output [B, S, H, d] and no weights.

    Raises LeftEarly in layer `leave_after`, once its row is taken.
    """
    refuse_biases(module, kwargs)
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    layer = int(module.layer_idx)  # type: ignore[arg-type]
    if row_capture is not None:
        row_capture.record(layer, query, key, scale, softcap=softcap, window=sliding_window, mask=attention_mask)
    if layer == leave_after:
        raise LeftEarly
    if softcap is not None:
        # transformers' SDPA path drops the soft-cap without a word; hidden states must equal eager's.
        output = softcapped_attention(query, key, value, scale, softcap, attention_mask)
        return output.transpose(1, 2).contiguous(), None
    return sdpa_attention_forward(module, query, key, value, attention_mask, dropout=dropout, scaling=scale, **kwargs)


def check_mask(mask: Tensor | None, sequence: int, length: int, padded: int, window: int | None, layer: int) -> None:
    """The row's own rule (causal, then window) must be the mask that the layer ran with, or the row would be wrong."""
    start = max(0, length - window) if window is not None else 0
    if mask is None:
        agrees = start == 0
    else:
        visible = mask[sequence, 0, length - 1]
        positions = torch.arange(padded, device=visible.device)
        agrees = bool(torch.equal(visible, (positions >= start) & (positions < length)))
    if not agrees:
        raise ModelError(
            f"layer {layer} ran with a mask that is not its causal sliding window of {window}; this attention pattern "
            "is not supported"
        )


AttentionInterface.register(IMPLEMENTATION, query_row_attention)
AttentionMaskInterface.register(IMPLEMENTATION, sdpa_mask)
