"""cDPO: tokens that led astray weigh most (METHODS 4.4)."""

import numpy as np

from pipeline.config.weights import CriticalWeights
from pipeline.weights.trained.tokens import ScoredTokens, TrainedWeights

_EOS = {"zero": 0.0, "one": 1.0}


def weights_of(scored: ScoredTokens, params: CriticalWeights) -> TrainedWeights:
    """1 - s_t on the dispreferred response; on the preferred one 1, or s_t where the params say so."""
    if scored.preferred and params.chosen == "ones":
        return TrainedWeights(np.ones(scored.tokens), 1.0)
    weights = scored.scores.copy() if scored.preferred else 1 - scored.scores
    if scored.eos and params.eos_weight in _EOS:
        weights[-1] = _EOS[params.eos_weight]
    return TrainedWeights(weights, 1.0)
