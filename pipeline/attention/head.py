"""Logits of single positions over the whole vocabulary, in float32."""

import torch
from torch import Tensor

ROWS_PER_CHUNK = 16_384
"""Rows of the head that are upcast at once: 256 MiB of float32 at a hidden size of 4,096."""


def vocabulary_logits(
    hidden: Tensor,
    weight: Tensor,
    *,
    bias: Tensor | None = None,
    softcap: float | None = None,
    rows_per_chunk: int = ROWS_PER_CHUNK,
) -> Tensor:
    """hidden[N, D] · weight[V, D]^T (+ bias[V]), then c · tanh(logit / c) where the model caps its logits.

    Computed in float32 whatever the dtype: bfloat16 logits of "A" and "B" are often exactly equal, and a verdict
    would become a tie. Returns float32 [N, V].
    """
    states = hidden.float()
    chunks = [torch.matmul(states, rows.float().T) for rows in weight.split(rows_per_chunk)]
    logits = torch.cat(chunks, dim=-1)
    if bias is not None:
        logits = logits + bias.float()
    if softcap is not None:
        logits = softcap * torch.tanh(logits / softcap)
    return logits
