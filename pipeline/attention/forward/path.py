"""One forward pass over a batch of judge prompts, as the backend asks for it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

Batch = Sequence[int]
"""Indices of prompts."""


class LeftEarly(Exception):
    """Raised by an attention function to leave the forward pass: what follows is not wanted."""


@dataclass(frozen=True)
class Pass:
    """What one forward pass says about the prompts of its batch, in the batch's order."""

    rows: dict[int, list[Tensor]]
    """Layer -> per prompt the row [K, n] from its last position to its n tokens, float32."""
    hidden: Tensor | None
    """[B, D], the last hidden state at the last position, after the final norm; None where it was not asked for."""
    positions: int
    """Positions computed, padding included."""
    flops: float


class ForwardPath(Protocol):
    """A way to run the model's body over many prompts."""

    def batches(self, prompts: Sequence[Sequence[int]], budget: int) -> list[Batch]:
        """All prompts, in batches of at most `budget` positions where a batch is more than one prompt."""
        ...

    def forward(self, prompts: Sequence[Sequence[int]], layers: Sequence[int], hidden: bool) -> Pass:
        """The rows of `layers`, and the last hidden state if asked for. Without it, layers above are not run."""
        ...
