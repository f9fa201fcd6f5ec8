"""Random weights, a control."""

from pipeline.config.weights import RandomWeights
from pipeline.weights.trained.draws import uniform_draws
from pipeline.weights.trained.tokens import ScoredTokens, TrainedWeights


def weights_of(scored: ScoredTokens, params: RandomWeights) -> TrainedWeights:
    """w_t from U(low, high), independently for every trained token."""
    draws = uniform_draws(scored, params.seed, scored.tokens)
    return TrainedWeights(params.low + (params.high - params.low) * draws, 1.0)
