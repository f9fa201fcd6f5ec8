"""D2PO's temporal decay (METHODS 4.5)."""

import numpy as np

from pipeline.config.weights import DecayWeights
from pipeline.weights.trained.tokens import ScoredTokens, TrainedWeights


def weights_of(scored: ScoredTokens, params: DecayWeights) -> TrainedWeights:
    """w_t = gamma^t from the first trained token to the end of turn; t begins at 0 (paper) or 1 (code)."""
    exponents = np.arange(scored.tokens) + params.first_exponent
    return TrainedWeights(np.power(params.gamma, exponents, dtype=np.float64), 1.0)
