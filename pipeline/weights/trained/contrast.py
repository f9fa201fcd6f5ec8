"""TIS-DPO and SePO: weights from the contrast of two models (METHODS 4.2, 4.3)."""

import numpy as np

from pipeline.config.weights import ContrastWeights
from pipeline.weights.trained.draws import uniform_draws
from pipeline.weights.trained.tokens import FloatArray, ScoredTokens, TrainedWeights
from pipeline.weights.trained.transforms import clamp_and_scale, exp_clamp, highest_percent, ranks, select_highest

_EOS = {"zero": 0.0, "one": 1.0}


def weights_of(scored: ScoredTokens, params: ContrastWeights) -> TrainedWeights:
    """The transform of the response's scores. An end of turn of fixed weight is left out of ranks and counts."""
    eos_fixed = scored.eos and params.eos_weight in _EOS
    scores = scored.scores[:-1] if eos_fixed else scored.scores
    if params.decimals is not None:
        scores = np.round(scores, params.decimals)
    weights = _transformed(scored, scores, params)
    if eos_fixed:
        weights = np.append(weights, _EOS[params.eos_weight])
    return TrainedWeights(weights, 1.0)


def _transformed(scored: ScoredTokens, scores: FloatArray, params: ContrastWeights) -> FloatArray:
    sign = 1 if scored.preferred else -1
    values = sign * scores
    match params.transform:
        case "origin":
            return values
        case "binary":
            return highest_percent(values, params.top_percent)
        case "threshold":
            return np.clip(values, -params.threshold, params.threshold)
        case "threshold_and_scale":
            return clamp_and_scale(values, params.scale_threshold, params.low, params.high)
        case "rank_based":
            return ranks(values, params.low, params.high)
        case "random":
            return params.low + (params.high - params.low) * uniform_draws(scored, params.seed, len(values))
        case "exp_clamp":
            return exp_clamp(scores, sign, params)
        case "select":
            return select_highest(values, params.select_share, params.skip_first)
