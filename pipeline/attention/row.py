"""The query row: softmax(q · K^T · scale) of one position, the only attention that this project keeps."""

from collections.abc import Sequence

import torch
from torch import Tensor

from pipeline.schemas.attention import MEAN_OVER_HEADS


def attention_row(
    query: Tensor, keys: Tensor, scale: float, *, softcap: float | None = None, window: int | None = None
) -> Tensor:
    """Attention of one query position to every position up to itself (DESIGN section 6; Vaswani et al. 2017, Eq. 1).

    query[H, d] and keys[Hkv, S, d] are those after rotary embedding and norms; the query sits at position S - 1, so
    the keys hold no later position. Query head h reads key head h // (H / Hkv) (grouped-query attention).
    `softcap` c bounds the scores to (-c, c) as c · tanh(s / c), before the mask (Gemma-2); `window` w leaves the last
    w positions, the query's own among them. Returns float32 [H, S]; each row sums to 1.

    Raises ValueError when the shapes do not fit each other.
    """
    heads, size = query.shape
    key_heads, length, key_size = keys.shape
    if size != key_size or heads % key_heads:
        raise ValueError(f"query {tuple(query.shape)} and keys {tuple(keys.shape)} do not belong to one layer")
    # The upcast comes before the product: bfloat16 scores would cost the row about two digits (METHODS A9).
    grouped = query.float().reshape(key_heads, heads // key_heads, size)
    scores = torch.matmul(grouped, keys.float().transpose(1, 2)) * scale
    if softcap is not None:
        scores = softcap * torch.tanh(scores / softcap)
    if window is not None and window < length:
        scores[..., : length - window] = float("-inf")
    return scores.softmax(dim=-1).reshape(heads, length)


def choose_heads(row: Tensor, heads: Sequence[int]) -> Tensor:
    """Of a row[H, S] those heads, float32 [K, S]; (MEAN_OVER_HEADS,): their mean [1, S] (paper 2.5; METHODS A9)."""
    if tuple(heads) == (MEAN_OVER_HEADS,):
        return row.float().mean(dim=0, keepdim=True)
    return row.float()[list(heads)]
