"""Tokens of different responses side by side: the first trained token with the first, the second with the second."""

import torch
from torch import Tensor
from torch.nn.functional import pad

from pipeline.objectives.response import Response, masked


def by_position(response: Response, values: Tensor, width: int) -> tuple[Tensor, Tensor]:
    """Values [B, T] of the trained tokens, moved to the front in their order and padded to `width` >= T.

    Returns them, [B, width], 0 behind the last token, and where tokens are, [B, width] bool.
    """
    front = torch.argsort(response.mask.int(), dim=-1, descending=True, stable=True)
    moved = masked(response, values).gather(-1, front)
    places = torch.arange(width, device=moved.device)
    return pad(moved, (0, width - moved.shape[-1])), places < response.mask.sum(dim=-1, keepdim=True)
