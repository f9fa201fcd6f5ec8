"""Attention over a packed row of prompts, prompt by prompt, and the query rows of the wanted layers."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers.modeling_utils import AttentionInterface

from pipeline.attention.forward.bounds import refuse_biases, went_around
from pipeline.attention.forward.packing import Packed, PackedPrompt
from pipeline.attention.forward.path import LeftEarly
from pipeline.attention.row import attention_row, choose_heads
from pipeline.errors import ModelError
from pipeline.models.packed.causal import CausalAttention

PACKED = "packed_query_row"
"""The name under which transformers calls this module. No mask is registered beside it, so transformers makes none: the
prompts of a packed row know their own bounds."""

KeysValues = tuple[Tensor, Tensor]
"""key[1, Hkv, S, d] and value[1, Hkv, S, d]."""


class PackedAttention:
    """State of one forward pass over a packed row.

    Args:
        header: keys and values of the header by layer; empty where the row has none.
        layers: those whose rows are wanted.
        heads: as `resolve_heads` gives them.
        top: the layer at which the pass is left, once its keys, values and rows are there. With `only_last` set, that
            layer may then be called with the prompts' last positions alone.
        keep: keep every layer's keys and values in `kept`.
    """

    def __init__(
        self,
        packed: Packed,
        header: dict[int, KeysValues],
        layers: Sequence[int],
        heads: Sequence[int],
        top: int,
        attention: CausalAttention,
        keep: bool = False,
    ) -> None:
        self.only_last = False
        self.kept: dict[int, KeysValues] = {}
        self._packed = packed
        self._header = header
        self._layers = frozenset(layers)
        self._heads = heads
        self._top = top
        self._attention = attention
        self._keep = keep
        self._seen: set[int] = set()
        self._rows: dict[int, list[Tensor]] = {}
        self._top_states: KeysValues | None = None

    def rows(self) -> dict[int, list[Tensor]]:
        """Layer -> per prompt the row [K, n]. Raises ModelError if a wanted layer was not seen."""
        missing = sorted(self._layers - self._rows.keys())
        if missing:
            raise ModelError(went_around(missing))
        return {layer: self._rows[layer] for layer in sorted(self._rows)}

    def attend(self, layer: int, query: Tensor, states: KeysValues, scale: float, softcap: float | None) -> Tensor:
        """query[1, H, N, d] over key and value [1, Hkv, N, d]: the output [1, N, H, d]."""
        if self.only_last:
            return self._attend_last(layer, query, scale, softcap)
        if layer in self._seen:
            raise ModelError(f"layer {layer} ran twice in one forward pass; its query row would be ambiguous")
        self._seen.add(layer)
        if self._keep:
            # A copy: views would keep alive the whole projection that they were cut from.
            self.kept[layer] = states[0].clone(), states[1].clone()
        if layer in self._layers:
            self._rows[layer] = [
                choose_heads(
                    self._row(layer, query[0, :, prompt.stop - 1], states, prompt, scale, softcap), self._heads
                )
                for prompt in self._packed.prompts
            ]
        if layer == self._top:
            self._top_states = states
            raise LeftEarly
        output = torch.empty_like(query.transpose(1, 2))
        for prompt in self._packed.prompts:
            own = slice(prompt.start, prompt.stop)
            keys, values = (self._joined(layer, which, states[which], prompt) for which in (0, 1))
            output[:, own] = self._attention(query[:, :, own], keys, values, scale, softcap).transpose(1, 2)
        return output

    def _attend_last(self, layer: int, query: Tensor, scale: float, softcap: float | None) -> Tensor:
        """query[1, H, P, d] of the P prompts' last positions over the keys that layer `top` has left: [1, P, H, d]."""
        if layer != self._top or self._top_states is None:
            raise ModelError(f"layer {layer} was called where layer {self._top} was expected")
        mixed = []
        for i, prompt in enumerate(self._packed.prompts):
            row = self._row(layer, query[0, :, i], self._top_states, prompt, scale, softcap)
            values = self._joined(layer, 1, self._top_states[1], prompt)[0].float()
            grouped = row.view(len(values), -1, row.shape[-1])
            mixed.append(torch.matmul(grouped, values).reshape(len(row), -1))
        return torch.stack(mixed)[None].to(query.dtype)

    def _row(
        self, layer: int, query: Tensor, states: KeysValues, prompt: PackedPrompt, scale: float, softcap: float | None
    ) -> Tensor:
        """Attention of query[H, d], the prompt's last, to all its tokens: float32 [H, n]."""
        return attention_row(query, self._joined(layer, 0, states[0], prompt)[0], scale, softcap=softcap)

    def _joined(self, layer: int, which: int, states: Tensor, prompt: PackedPrompt) -> Tensor:
        """Keys (`which` 0) or values (1) of a prompt from its first token on: [1, Hkv, n, d]."""
        parts = [self._header[layer][which]] if self._header else []
        shared, own = slice(*prompt.shared), slice(prompt.start, prompt.stop)
        parts += [states[:, :, part] for part in (shared, own) if part.stop > part.start]
        return parts[0] if len(parts) == 1 else torch.cat(parts, dim=2)


def packed_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    packed: PackedAttention,
    scaling: float | None = None,
    softcap: float | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """An attention function in the sense of transformers' AttentionInterface: output [1, N, H, d] and no weights."""
    refuse_biases(module, kwargs)
    if attention_mask is not None:
        raise ModelError(f"{type(module).__name__} brought a mask, which packed prompts have no use for")
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    layer = int(module.layer_idx)  # type: ignore[arg-type]
    return packed.attend(layer, query, (key, value), scale, softcap), None


AttentionInterface.register(PACKED, packed_attention)
