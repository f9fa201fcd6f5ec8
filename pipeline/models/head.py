"""A language model's head, a block of logits at a time: hidden states to logits, and gradients of logits back.

The logits of a batch are never stored whole. What is made of a block of them is in `logps` and `kls`.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

LOGITS_AT_ONCE = 2**24
"""64 MiB of float32."""
TOKENS_AT_ONCE = 4096
"""So many share a block, so that its part of the vocabulary is wide enough for fast products."""


def blocks(tokens: int, vocabulary: int, logits_at_once: int) -> Iterator[tuple[slice, slice]]:
    """Blocks of tokens × words, the words of the same tokens one after the other."""
    for first in range(0, tokens, TOKENS_AT_ONCE):
        rows = slice(first, min(first + TOKENS_AT_ONCE, tokens))
        width = max(1, logits_at_once // (rows.stop - rows.start))
        for start in range(0, vocabulary, width):
            yield rows, slice(start, min(start + width, vocabulary))


def head_logits(
    hidden: Tensor, weight: Tensor, bias: Tensor | None, softcap: float | None, words: slice = slice(None)
) -> Tensor:
    """float32 logits [n, v] of hidden states [n, H] over the words of a vocabulary [V, H], soft-capped."""
    head = weight[words]
    if hidden.dtype != head.dtype or head.dtype == torch.float32:
        logits = hidden.float() @ head.float().T
    elif head.is_cuda:
        logits = torch.mm(hidden, head.T, out_dtype=torch.float32)
    else:
        # Only CUDA makes float32 products of 16-bit factors without a copy.
        with _products_of_16_bits(head.dtype):
            logits = hidden.float() @ head.float().T
    if bias is not None:
        logits += bias[words].float()
    return logits if softcap is None else logits.div_(softcap).tanh_().mul_(softcap)


@contextmanager
def _products_of_16_bits(dtype: torch.dtype) -> Iterator[None]:
    """Within it, float32 products on the CPU take their factors as bfloat16 where they came from it.

    Nothing is rounded that was not before, and sums stay float32; where the CPU has units for bfloat16 (AMX, AVX-512)
    a product of a thousand tokens is four to five times as fast.
    """
    matmul = torch.backends.mkldnn.matmul  # type: ignore[attr-defined]
    before = matmul.fp32_precision
    if dtype == torch.bfloat16:
        matmul.fp32_precision = "bf16"
    try:
        yield
    finally:
        matmul.fp32_precision = before


def softcap_slope(logits: Tensor, softcap: float | None) -> Tensor | None:
    """The soft-cap's derivative where it gave these logits [n, v]; None without one."""
    return None if softcap is None else 1 - (logits / softcap).square_()


class HeadGradients:
    """Gradients of hidden states [N, H], weight [V, H] and bias [V], summed over blocks of logits.

    Args:
        wanted: of the three, in this order, the ones that need a gradient; what follows is not looked at.
    """

    def __init__(self, hidden: Tensor, weight: Tensor, bias: Tensor | None, wanted: Sequence[bool]) -> None:
        self._given = hidden, weight, bias
        self._hidden = torch.zeros_like(hidden, dtype=torch.float32) if wanted[0] else None
        # In float32 where several blocks of tokens add to it.
        kind = weight.dtype if len(hidden) <= TOKENS_AT_ONCE else torch.float32
        self._weight = torch.zeros_like(weight, dtype=kind) if wanted[1] else None
        self._bias = torch.zeros_like(bias, dtype=torch.float32) if bias is not None and wanted[2] else None

    def add(self, rows: slice, words: slice, grad: Tensor) -> None:
        """Take a block's gradient [n, v], float32, with respect to the logits before the soft-cap."""
        hidden, weight, _ = self._given
        if self._bias is not None:
            self._bias[words] += grad.sum(0)
        # From here on in the type of the weights: products of a bfloat16 model are bfloat16 in its body too.
        grad = grad.to(weight.dtype)
        if self._hidden is not None:
            self._hidden[rows] += grad @ weight[words]
        if self._weight is not None:
            self._weight[words] += grad.T @ hidden[rows].to(weight.dtype)

    def sums(self) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        """The gradients in the types of hidden states, weight and bias; None where none was wanted."""
        hidden, weight, bias = self._given
        return (
            None if self._hidden is None else self._hidden.to(hidden.dtype),
            None if self._weight is None else self._weight.to(weight.dtype),
            None if self._bias is None or bias is None else self._bias.to(bias.dtype),
        )
