"""Attention with soft-capped scores, which scaled_dot_product_attention cannot compute."""

import torch
from torch import Tensor

SCORES_PER_BLOCK = 1 << 24
"""Scores held at once: 64 MiB of float32, whatever the sequence length."""


def softcapped_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    scale: float,
    softcap: float,
    mask: Tensor | None = None,
    scores_per_block: int = SCORES_PER_BLOCK,
) -> Tensor:
    """Causal attention with scores c · tanh(s / c) (Gemma-2), in blocks of queries so that no S×S matrix exists.

    query[B, H, n, d], key[B, Hkv, S, d], value[B, Hkv, S, d]: the queries are those of the last n <= S positions;
    mask[B or 1, 1, n, S] bool, True where a query may look (None: causal). Scores and softmax are float32; returns
    [B, H, n, d] in query's dtype.
    """
    batch, heads, length, size = query.shape
    key_heads, keys = key.shape[1:3]
    before = keys - length
    groups = heads // key_heads
    grouped = query.reshape(batch, key_heads, groups, length, size)
    block = max(1, scores_per_block // (batch * heads * keys))
    outputs = []
    for start in range(0, length, block):
        stop = min(start + block, length)
        rows = grouped[:, :, :, start:stop].reshape(batch, key_heads, groups * (stop - start), size)
        # Later keys are masked for every query of the block, so they are left out of the product.
        seen = before + stop
        scores = torch.matmul(rows, key[:, :, :seen].transpose(2, 3)).float() * scale
        scores = (softcap * torch.tanh(scores / softcap)).view(batch, key_heads, groups, stop - start, seen)
        scores = scores.masked_fill(~_visible(mask, start, stop, before, query.device), float("-inf"))
        probs = scores.softmax(dim=-1).to(value.dtype).view(batch, key_heads, groups * (stop - start), seen)
        mixed = torch.matmul(probs, value[:, :, :seen])
        outputs.append(mixed.view(batch, heads, stop - start, size))
    return torch.cat(outputs, dim=2)


def _visible(mask: Tensor | None, start: int, stop: int, before: int, device: torch.device) -> Tensor:
    """Which of the keys [0, before + stop) each query of [start, stop) sees: bool [B or 1, 1, 1, queries, keys]."""
    if mask is not None:
        return mask[:, :, None, start:stop, : before + stop]
    queries = torch.arange(before + start, before + stop, device=device)
    return (torch.arange(before + stop, device=device)[None, :] <= queries[:, None])[None, None, None]
