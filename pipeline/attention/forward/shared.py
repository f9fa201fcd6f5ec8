"""The forward pass over prompts that share prefixes: each prefix once, no padding, only what the rows need.

The prompts of a batch lie in one row (`pipeline.attention.forward.packing`). All layers but attention treat positions
alike, so transformers runs them as they are; attention is computed prompt by prompt, over the keys of its prefixes and
its own. In the model's last layer only the prompts' last positions go further than their keys and values.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from pipeline.attention.flops import LayerFlops
from pipeline.attention.forward.bounds import went_around
from pipeline.attention.forward.packed_attention import KeysValues, PackedAttention
from pipeline.attention.forward.packing import Packed, pack
from pipeline.attention.forward.path import Batch, LeftEarly, Pass
from pipeline.attention.forward.prefixes import find_groups, group_batches
from pipeline.errors import ModelError
from pipeline.models.packed.causal import CausalAttention


class SharedForward:
    """A ForwardPath (see `pipeline.attention.forward.path`) that computes shared prefixes once.

    `header`: tokens that (nearly) all prompts begin with; their keys and values are computed at the first use and kept
    for the life of the object. Call inside `capturing(model, PACKED)`.
    """

    def __init__(self, model: PreTrainedModel, heads: Sequence[int], header: Sequence[int] = ()) -> None:
        self._model = model
        self._body = model.base_model
        self._heads = tuple(heads)
        self._header = list(header)
        self._header_states: dict[int, KeysValues] = {}
        self._attention = CausalAttention()
        self._flops = LayerFlops(model)

    def batches(self, prompts: Sequence[Sequence[int]], budget: int) -> list[Batch]:
        groups = find_groups(prompts, self._header)
        lengths = [len(ids) for ids in prompts]
        return [
            [index for group in batch for index in group.members] for batch in group_batches(groups, lengths, budget)
        ]

    def forward(self, prompts: Sequence[Sequence[int]], layers: Sequence[int], hidden: bool) -> Pass:
        packed = pack(find_groups(prompts, self._header), prompts)
        positions, flops = packed.input_ids.shape[1], 0.0
        if packed.header and not self._header_states:
            flops += self._compute_header()
            positions += packed.header
        top = len(self._body.layers) - 1 if hidden else max(layers)
        states = self._header_states if packed.header else {}
        attend = PackedAttention(packed, states, layers, self._heads, top, self._attention)
        stood = self._run(packed, attend, top)
        last = self._finish(packed, attend, stood) if hidden else None
        flops += self._flops.of(packed.input_ids.shape[1], packed.scores(), top, len(packed.prompts) if hidden else 0)
        return Pass(attend.rows(), last, positions, flops)

    def _compute_header(self) -> float:
        """Keys and values of the header at every layer."""
        packed = pack(find_groups([self._header]), [self._header])
        top = len(self._body.layers) - 1
        attend = PackedAttention(packed, {}, (), self._heads, top, self._attention, keep=True)
        self._run(packed, attend, top)
        self._header_states = attend.kept
        return self._flops.of(len(self._header), packed.scores(), top, 0)

    def _run(self, packed: Packed, attend: "PackedAttention", top: int) -> dict[str, Any]:
        """All layers up to the attention of layer `top`; returns what that layer was called with."""
        stood: dict[str, Any] = {}

        def remember(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            stood.update(kwargs, hidden_states=args[0] if args else kwargs["hidden_states"])

        hook = self._body.layers[top].register_forward_pre_hook(remember, with_kwargs=True)
        device = self._model.device
        try:
            self._body(
                input_ids=packed.input_ids.to(device),
                position_ids=packed.position_ids.to(device),
                use_cache=False,
                packed=attend,
            )
        except LeftEarly:
            return stood
        finally:
            hook.remove()
        raise ModelError(went_around([top]))

    def _finish(self, packed: Packed, attend: "PackedAttention", stood: dict[str, Any]) -> Tensor:
        """The last layer and the norm at the prompts' last positions alone: [B, D]."""
        at = torch.tensor(packed.last, device=self._model.device)
        attend.only_last = True
        stood["hidden_states"] = stood["hidden_states"][:, at]
        stood["position_ids"] = stood["position_ids"][:, at]
        stood["position_embeddings"] = tuple(part[:, at] for part in stood["position_embeddings"])
        output = self._body.layers[-1](**stood)
        return self._body.norm(output[0] if isinstance(output, tuple) else output)[0]
