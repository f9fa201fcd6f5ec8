"""One response as a source of weights in the training context sees it, and what it makes of it."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, slots=True)
class ScoredTokens:
    """One response of T trained tokens."""

    tokens: int
    """T, the end of turn included where it is trained."""
    eos: bool
    """Whether the last token is the end of turn."""
    preferred: bool
    """Whether training prefers it: where labels are flipped, the opposite of what the data say."""
    prompt_tokens: int
    scores: FloatArray
    """[T] raw scores; zeros for sources that look at nothing."""
    prompt_score: float
    """Sum of the raw scores of the prompt's tokens; 0 for sources that do not score those."""
    pair_id: str
    response: str
    """``chosen`` or ``rejected``, as the data say."""

    @property
    def where(self) -> str:
        """For messages."""
        return f"pair {self.pair_id}, {self.response} response"


@dataclass(frozen=True, slots=True)
class TrainedWeights:
    """Weights of the T trained tokens."""

    weights: FloatArray
    """[T]"""
    length: float
    """What the objective multiplies their weighted sum with: |y| for weights of sum 1, 1 for all others."""
