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

    query[B, H, S, d], key[B, Hkv, S, d], value[B, Hkv, S, d] of one whole sequence each; mask[B or 1, 1, S, S] bool,
    True where a query may look (None: causal). Scores and softmax are float32; returns [B, H, S, d] in query's dtype.
    """
    batch, heads, length, size = query.shape
    key_heads = key.shape[1]
    groups = heads // key_heads
    grouped = query.reshape(batch, key_heads, groups, length, size)
    block = max(1, scores_per_block // (batch * heads * length))
    outputs = []
    for start in range(0, length, block):
        stop = min(start + block, length)
        rows = grouped[:, :, :, start:stop].reshape(batch, key_heads, groups * (stop - start), size)
        # Later keys are masked for every query of the block, so they are left out of the product.
        scores = torch.matmul(rows, key[:, :, :stop].transpose(2, 3)).float() * scale
        scores = (softcap * torch.tanh(scores / softcap)).view(batch, key_heads, groups, stop - start, stop)
        scores = scores.masked_fill(~_visible(mask, start, stop, query.device), float("-inf"))
        probs = scores.softmax(dim=-1).to(value.dtype).view(batch, key_heads, groups * (stop - start), stop)
        mixed = torch.matmul(probs, value[:, :, :stop])
        outputs.append(mixed.view(batch, heads, stop - start, size))
    return torch.cat(outputs, dim=2)


def _visible(mask: Tensor | None, start: int, stop: int, device: torch.device) -> Tensor:
    """Which of the keys [0, stop) each query of [start, stop) sees: bool [B or 1, 1, 1, stop - start, stop]."""
    if mask is not None:
        return mask[:, :, None, start:stop, :stop]
    queries = torch.arange(start, stop, device=device)
    return (torch.arange(stop, device=device)[None, :] <= queries[:, None])[None, None, None]
