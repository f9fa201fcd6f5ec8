"""Percentile bootstrap intervals of means over pairs (Efron and Tibshirani 1993, chapter 13)."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_CELLS = 8_000_000
"""Largest number of drawn indices held at once: 64 MB."""


@dataclass(frozen=True)
class Interval:
    """A mean over pairs, and the interval in which the mean of another such sample of pairs is expected to lie."""

    mean: float
    low: float
    high: float


def mean_intervals(values: NDArray[np.float64], samples: int, confidence: float, seed: int) -> list[Interval]:
    """One interval for each of M numbers, values[N, M]. Needs N >= 1; with one pair, low = high = mean.

    The N rows are drawn with replacement, whole rows at a time, so every number sees the same pairs. low and high are
    the (1 - confidence)/2 and (1 + confidence)/2 quantiles of the means of `samples` such draws, interpolated linearly.
    """
    pairs = len(values)
    generator = np.random.default_rng(seed)
    means = np.empty((samples, values.shape[1]))
    at_once = max(1, _CELLS // pairs)
    for first in range(0, samples, at_once):
        number = min(at_once, samples - first)
        means[first : first + number] = _draw_counts(generator, number, pairs) @ values / pairs
    low, high = np.quantile(means, [(1 - confidence) / 2, (1 + confidence) / 2], axis=0)
    columns = zip(values.mean(axis=0), low, high, strict=True)
    return [Interval(float(mean), float(lower), float(upper)) for mean, lower, upper in columns]


def _draw_counts(generator: np.random.Generator, samples: int, pairs: int) -> NDArray[np.float64]:
    """How often each pair is in each sample: [samples, pairs], every row of sum `pairs`."""
    drawn = generator.integers(0, pairs, size=(samples, pairs))
    cells = drawn + np.arange(samples)[:, None] * pairs
    counts = np.bincount(cells.ravel(), minlength=samples * pairs)
    return counts.reshape(samples, pairs).astype(np.float64)
