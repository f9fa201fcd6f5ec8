"""One weight per token out of the scores of the two judge rounds (AttentionPO, Eq. 13 and "Normalization" of 2.6)."""

from typing import Literal

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
RoundsOrder = Literal["normalize_then_average", "average_then_normalize"]


def combine_rounds(round_1: FloatArray, round_2: FloatArray, order: RoundsOrder) -> FloatArray:
    """Weights [n] that sum to 1, from the non-negative scores [n] of one response in both rounds.

    ``normalize_then_average`` is the released code: both rounds count the same, however much of the judge's attention
    the response had in each. ``average_then_normalize`` is the paper: a round counts by that share. The two agree where
    the rounds put the same mass on the response. Scores that are all 0 become uniform weights.

    Swapping the rounds leaves the result the same to the bit: addition commutes, and nothing else mixes them.
    """
    if order == "normalize_then_average":
        return (normalized(round_1) + normalized(round_2)) / 2
    return normalized(round_1 + round_2)


def normalized(scores: FloatArray) -> FloatArray:
    """``scores`` [n] >= 0 divided by their sum; uniform 1/n where that sum is 0, as in the released code."""
    total = scores.sum()
    if total == 0:
        return np.full(len(scores), 1 / len(scores))
    return scores / total
