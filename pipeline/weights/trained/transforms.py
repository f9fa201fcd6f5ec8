"""The transforms of TIS-DPO and SePO: from the contrast of two models to weights (METHODS 4.2, 4.3).

All but one see the scores of one response with the sign of its role: high ones speak for a preferred response, and
against a dispreferred one. Each takes n values and gives n weights.
"""

import numpy as np

from pipeline.config.weights import ContrastWeights
from pipeline.weights.trained.tokens import FloatArray


def highest_percent(values: FloatArray, percent: float) -> FloatArray:
    """1 for the highest int(n percent / 100), else 0; of equal values all or none, none where they do not all fit."""
    not_below = len(values) - np.searchsorted(np.sort(values), values, side="left")
    return (not_below <= int(len(values) * percent / 100)).astype(np.float64)


def select_highest(values: FloatArray, share: float, skip_first: bool) -> FloatArray:
    """1 for the highest int(share n), else 0; of equal values the earlier ones. SePO.

    `skip_first`: the first is never among them, and n does not count it.
    """
    first = int(skip_first)
    order = np.argsort(-values[first:], kind="stable")
    mask = np.zeros(len(values))
    mask[first + order[: int(share * len(order))]] = 1
    return mask


def clamp_and_scale(values: FloatArray, bound: float, low: float, high: float) -> FloatArray:
    """[-bound, bound] mapped linearly to [low, high]; what lies outside is clamped first."""
    return low + (np.clip(values, -bound, bound) + bound) * (high - low) / (2 * bound)


def ranks(values: FloatArray, low: float, high: float) -> FloatArray:
    """The lowest gets `low`, the highest `high`, the others evenly between; of equal values the earlier is the lower.

    A single value has no rank: 1.
    """
    n = len(values)
    if n < 2:
        return np.ones(n)
    found = np.empty(n)
    found[np.argsort(values, kind="stable")] = low + np.arange(n) / (n - 1) * (high - low)
    return found


def exp_clamp(scores: FloatArray, sign: int, params: ContrastWeights) -> FloatArray:
    """k exp(sign |mu| clamp(s_t, L, U)), of scores without their sign: the bounds are not symmetric."""
    clamped = np.clip(scores, params.exp_low, params.exp_high)
    return params.exp_scale * np.exp(sign * params.exp_slope * clamped)
