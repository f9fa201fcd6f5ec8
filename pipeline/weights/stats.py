"""What the weights of a data set look like: the numbers of Table 1 and Table 2 of AttentionPO, gathered in one pass.

Everything is a sum. Float sums depend on their order in the last digits: add responses in the order of the shards and
the result is the same on every run.
"""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
SHARES = 3
"""Leading tokens whose mean share of the weight is kept; the paper quotes three (section 3, "Attention Weights")."""


@dataclass(frozen=True, slots=True)
class TokenMean:
    """A row of Table 2."""

    token_id: int
    mean_weight: float
    occurrences: int


@dataclass(slots=True)
class SpreadSums:
    """A row of Table 1: how uneven the weights within a response are, averaged over responses."""

    responses: int = 0
    std: float = 0.0
    max: float = 0.0
    length: int = 0
    share: FloatArray = field(default_factory=lambda: np.zeros(SHARES))
    """[SHARES] sums of the weights at positions 0, 1, 2."""

    def add(self, weights: FloatArray) -> None:
        """Count one response, ``weights`` [n] of sum 1."""
        self.responses += 1
        self.std += float(weights.std())
        self.max += float(weights.max())
        self.length += len(weights)
        self.share[: len(weights)] += weights[:SHARES]

    def means(self) -> dict[str, float]:
        """``std`` (of the population, ddof 0), ``max``, ``length`` in judge-context tokens, and the mean weight of the
        first tokens, ``share_1`` to ``share_3`` (0 for a token that a response does not have). All 0 without responses.
        """
        count = max(self.responses, 1)
        means = {"std": self.std / count, "max": self.max / count, "length": self.length / count}
        return means | {f"share_{k + 1}": float(total / count) for k, total in enumerate(self.share)}


@dataclass(slots=True)
class TokenSums:
    """Table 2: weight and occurrences by token id. Two numbers for every id up to the highest seen."""

    weight: FloatArray = field(default_factory=lambda: np.zeros(0))
    occurrences: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, dtype=np.int64))

    def add(self, token_ids: NDArray[np.integer], weights: FloatArray) -> None:
        """Count the tokens [n] of one response and their weights [n]."""
        self._grow(int(token_ids.max()) + 1)
        np.add.at(self.weight, token_ids, weights)
        np.add.at(self.occurrences, token_ids, 1)

    def most_weighted(self, top: int, min_occurrences: int) -> list[TokenMean]:
        """The ``top`` tokens by mean weight over all their occurrences, of those that occur at least
        ``min_occurrences`` times (the paper: 10 tokens, 100 times); equal means by token id.
        """
        ids = np.flatnonzero(self.occurrences >= max(min_occurrences, 1))
        means = self.weight[ids] / self.occurrences[ids]
        best = np.lexsort((ids, -means))[:top]
        return [TokenMean(int(ids[k]), float(means[k]), int(self.occurrences[ids[k]])) for k in best]

    def _grow(self, size: int) -> None:
        missing = size - len(self.weight)
        if missing > 0:
            self.weight = np.pad(self.weight, (0, missing))
            self.occurrences = np.pad(self.occurrences, (0, missing))


@dataclass(slots=True)
class WeightStatistics:
    """Of all chosen, or of all rejected responses."""

    with_sink: SpreadSums = field(default_factory=SpreadSums)
    """Table 1 before Eq. 14, which is what the released code prints."""
    without_sink: SpreadSums = field(default_factory=SpreadSums)
    """Table 1 after Eq. 14, which is what the paper says it shows."""
    tokens: TokenSums = field(default_factory=TokenSums)
    """Table 2, after Eq. 14."""

    def add(self, token_ids: NDArray[np.integer], with_sink: FloatArray, weights: NDArray[np.floating]) -> None:
        """Count one response of n tokens: its ids [n] and its weights [n] before and after Eq. 14."""
        after = weights.astype(np.float64)
        self.with_sink.add(with_sink)
        self.without_sink.add(after)
        self.tokens.add(token_ids, after)
