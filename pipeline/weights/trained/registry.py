"""All sources of weights in the training context, by the name that `weights.source` gives."""

import numpy as np

from pipeline.config.weights import WeightsParams
from pipeline.errors import DataError, NonFiniteError
from pipeline.weights.trained import contrast, critical, decay, gradient, random, uniform, verbalized
from pipeline.weights.trained.tokens import ScoredTokens, TrainedWeights


def weigh(params: WeightsParams, scored: ScoredTokens) -> TrainedWeights:
    """Weights [T] of one response, float64 and finite, and what the objective multiplies their sum with.

    Raises DataError for scores of another length; NonFiniteError, naming the pair, for weights that are not finite;
    ValueError for the source `judge`, whose weights are made in the judge's context.
    """
    if len(scored.scores) != scored.tokens:
        raise DataError(
            f"{scored.where}: {scored.tokens} trained tokens but {len(scored.scores)} scores; the scores shard is"
            " damaged: remove it and run score again"
        )
    made = _weights(params, scored)
    if not np.isfinite(made.weights).all():
        raise NonFiniteError(
            f"{scored.where}: a weight of source {params.source} is not finite; check its scores, and the numbers in"
            f" weights.{params.source}"
        )
    return made


def _weights(params: WeightsParams, scored: ScoredTokens) -> TrainedWeights:
    match params.source:
        case "uniform":
            return uniform.weights_of(scored)
        case "verbalized":
            return verbalized.weights_of(scored)
        case "gradient":
            return gradient.weights_of(scored, params.gradient)
        case "contrast":
            return contrast.weights_of(scored, params.contrast)
        case "critical":
            return critical.weights_of(scored, params.critical)
        case "decay":
            return decay.weights_of(scored, params.decay)
        case "random":
            return random.weights_of(scored, params.random)
        case "judge":
            raise ValueError("weights of source judge come through realignment, not from scores of trained tokens")
