"""How weight is spread over the tokens of many responses, gathered shard by shard.

Weights are taken as multiples of the uniform weight: w n, with n the tokens of the response; their mean is 1.
"""

from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

Floats = NDArray[np.float64]

EDGES = np.logspace(-3, 2.5, 221)
"""Edges of the bins of w n: 40 to a power of ten. What lies outside counts in the first or the last bin."""
POSITIONS = 20
"""Equal parts of a response, by position."""


@dataclass
class WeightShape:
    """Sums over all tokens of the chosen, or of the rejected, responses."""

    tokens: Floats = field(default_factory=lambda: np.zeros(len(EDGES) - 1))
    """Tokens by bin of w n."""
    mass: Floats = field(default_factory=lambda: np.zeros(len(EDGES) - 1))
    """Sum of w n by bin of w n."""
    position_tokens: Floats = field(default_factory=lambda: np.zeros(POSITIONS))
    position_mass: Floats = field(default_factory=lambda: np.zeros(POSITIONS))

    def add(self, weights: pa.ChunkedArray) -> None:
        """Count a column of weights, one list per response."""
        for chunk in weights.chunks:
            lengths = pc.list_value_length(chunk).to_numpy(zero_copy_only=False).astype(np.int64)
            relative = chunk.flatten().to_numpy().astype(np.float64) * np.repeat(lengths, lengths)
            places = np.arange(len(relative)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
            part = places * POSITIONS // np.repeat(lengths, lengths)
            bins = np.clip(np.searchsorted(EDGES, relative, side="right") - 1, 0, len(self.tokens) - 1)
            self.tokens += np.bincount(bins, minlength=len(self.tokens))
            self.mass += np.bincount(bins, relative, minlength=len(self.mass))
            self.position_tokens += np.bincount(part, minlength=POSITIONS)
            self.position_mass += np.bincount(part, relative, minlength=POSITIONS)

    def by_position(self) -> Floats:
        """Mean of w n in each part of a response, [POSITIONS]; NaN where no response reaches."""
        with np.errstate(invalid="ignore"):
            return self.position_mass / np.where(self.position_tokens > 0, self.position_tokens, np.nan)

    def concentration(self) -> tuple[Floats, Floats]:
        """Share of the tokens, the most weighted first, and the share of the weight that they carry; from 0 to 1."""
        tokens, mass = (np.cumsum(values[::-1]) for values in (self.tokens, self.mass))
        return np.concatenate([[0], tokens / tokens[-1]]), np.concatenate([[0], mass / mass[-1]])

    def share_of_top(self, tokens: float) -> float:
        """Share of the weight that the most weighted share `tokens` of all tokens carries."""
        return float(np.interp(tokens, *self.concentration()))
