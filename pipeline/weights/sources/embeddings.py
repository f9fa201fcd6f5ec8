"""The embeddings that a model reads, as the place where a gradient ends."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn
from transformers import PreTrainedModel


@contextmanager
def leaf_embeddings(model: PreTrainedModel) -> Iterator[list[Tensor]]:
    """Within, each forward pass appends the embeddings [B, N, H] of its tokens, cut off from the embedding matrix.

    They are what the first block gets, after the factor that some architectures put on them.
    """
    leaves: list[Tensor] = []

    def cut(module: nn.Module, arguments: Any, embeddings: Tensor) -> Tensor:
        leaves.append(embeddings.detach().requires_grad_())
        return leaves[-1]

    handle = model.get_input_embeddings().register_forward_hook(cut)
    try:
        yield leaves
    finally:
        handle.remove()
