"""Attention of the last n positions of a sequence to all S positions before and at them."""

import torch
from torch import Tensor
from torch.nn.attention.bias import causal_lower_right

from pipeline.models.packed.softcap import softcapped_attention

MOSTLY_QUERIES = 0.7
"""Share of queries among the keys from which the CPU's causal kernel, with idle queries for the missing ones, is faster
than a mask: it skips the half above the diagonal, which a mask only hides."""
QUERIES_PER_BLOCK = 256
"""Rows of the one mask that is kept; more queries are computed in blocks of so many."""


class CausalAttention:
    """softmax(q · K^T · scale) · V for queries that stand at the end of their keys; no S×S matrix is stored."""

    def __init__(self) -> None:
        self._mask: Tensor | None = None

    def __call__(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        scale: float,
        softcap: float | None,
        window: int | None = None,
    ) -> Tensor:
        """query[1, H, n, d], key[1, Hkv, S, d], value[1, Hkv, S, d], n <= S; returns [1, H, n, d]. Differentiable.

        Query i stands at position S - n + i and sees the keys up to it, or the last `window` of them. `softcap`: c of
        Gemma-2's c * tanh(scores / c).
        """
        own, length = query.shape[2], key.shape[2]
        if window is not None and window < length:
            return self._windowed(query, key, value, scale, softcap, window)
        if softcap is not None:
            return softcapped_attention(query, key, value, scale, softcap)
        if own == length:
            return _sdpa(query, key, value, scale, is_causal=True)
        if query.is_cuda:
            return _lower_right(query, key, value, scale)
        if own >= MOSTLY_QUERIES * length:
            idle = query.new_zeros(*query.shape[:2], length - own, query.shape[3])
            return _sdpa(torch.cat([idle, query], dim=2), key, value, scale, is_causal=True)[:, :, -own:]
        # Otherwise only a mask says that the queries stand at the end. Blocks keep it small, and leave out keys that
        # none of a block's queries sees.
        outputs = []
        for start in range(0, own, QUERIES_PER_BLOCK):
            stop = min(start + QUERIES_PER_BLOCK, own)
            seen = length - own + stop
            mask = self._corner(stop - start, seen, query)
            outputs.append(_sdpa(query[:, :, start:stop], key[:, :, :seen], value[:, :, :seen], scale, attn_mask=mask))
        return outputs[0] if len(outputs) == 1 else torch.cat(outputs, dim=2)

    def _windowed(
        self, query: Tensor, key: Tensor, value: Tensor, scale: float, softcap: float | None, window: int
    ) -> Tensor:
        """In blocks of queries, each over the keys that some of its queries see."""
        own, before = query.shape[2], key.shape[2] - query.shape[2]
        outputs = []
        for start in range(0, own, QUERIES_PER_BLOCK):
            stop = min(start + QUERIES_PER_BLOCK, own)
            first, last = max(0, before + start - window + 1), before + stop
            places = torch.arange(first, last, device=query.device)
            queries = torch.arange(before + start, last, device=query.device)[:, None]
            visible = ((places <= queries) & (places > queries - window))[None, None]
            block = query[:, :, start:stop], key[:, :, first:last], value[:, :, first:last]
            if softcap is None:
                outputs.append(_sdpa(*block, scale, attn_mask=visible))
            else:
                outputs.append(softcapped_attention(*block, scale, softcap, visible))
        return outputs[0] if len(outputs) == 1 else torch.cat(outputs, dim=2)

    def _corner(self, queries: int, keys: int, like: Tensor) -> Tensor:
        """[queries, keys], 0 or -inf: the lower right corner of one matrix that is made once for all shapes."""
        kept = self._mask
        if kept is None or kept.shape[1] < keys or kept.dtype != like.dtype:
            width = max(keys, 2048)
            visible = torch.ones(QUERIES_PER_BLOCK, width, dtype=torch.bool).tril(width - QUERIES_PER_BLOCK)
            kept = torch.zeros(visible.shape, dtype=like.dtype).masked_fill_(~visible, float("-inf"))
            self._mask = kept
        return kept[-queries:, -keys:]


def _lower_right(query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
    """As torch dispatches it on CUDA: to the flash kernel, which aligns queries and keys at their ends."""
    return _sdpa(query, key, value, scale, attn_mask=causal_lower_right(query.shape[2], key.shape[2]))


def _sdpa(query: Tensor, key: Tensor, value: Tensor, scale: float, **how: object) -> Tensor:
    groups = query.shape[1] // key.shape[1]
    if groups > 1 and query.is_cuda and (query.dtype == torch.float32 or type(how.get("attn_mask")) is Tensor):
        # What float32 and masks get there, the memory-efficient kernel, has no grouped-query heads.
        key, value = key.repeat_interleave(groups, dim=1), value.repeat_interleave(groups, dim=1)
    return torch.nn.functional.scaled_dot_product_attention(
        query,
        key,
        value,
        scale=scale,
        enable_gqa=query.shape[1] != key.shape[1],
        **how,  # type: ignore[arg-type]
    )
