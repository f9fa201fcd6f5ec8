"""TI-DPO: saliency mixed with a prior over positions (Eq. 7, Appendix B.6; METHODS 3.1 to 3.3)."""

import numpy as np

from pipeline.config.weights import GradientWeights
from pipeline.weights.trained.tokens import FloatArray, ScoredTokens, TrainedWeights


def weights_of(scored: ScoredTokens, params: GradientWeights) -> TrainedWeights:
    """W = lambda I + (1 - lambda) P over the n tokens of the span, times n for `mean1`; the response's part of it.

    |y| = T for `sum1`. The response is the end of the span, so that only the sum of the prompt's scores matters.
    """
    whole = params.span == "sequence"
    n = scored.tokens + (scored.prompt_tokens if whole else 0)
    total = scored.scores.sum() + (scored.prompt_score if whole else 0.0)
    saliency = scored.scores / total if total > 0 else None
    prior = _prior(saliency, n, params)
    if prior is None:
        mixed = np.full(n, 1 / n) if saliency is None else saliency
    elif saliency is None:
        mixed = prior
    else:
        share = params.saliency_share
        mixed = share * saliency + (1 - share) * prior[n - scored.tokens :]
    weights = mixed[len(mixed) - scored.tokens :]
    if params.scale == "mean1":
        return TrainedWeights(weights * n, 1.0)
    return TrainedWeights(weights, float(scored.tokens))


def _prior(saliency: FloatArray | None, n: int, params: GradientWeights) -> FloatArray | None:
    """[n], sum 1; None: no prior."""
    if params.prior == "none":
        return None
    if params.prior == "gaussian":
        return gaussian_prior(n, params.prior_width, params.prior_min_sigma)
    return np.full(n, 1 / n) if saliency is None else _softmax(n * saliency)


def gaussian_prior(n: int, width: float, min_sigma: float) -> FloatArray:
    """p_t ~ exp(-((t - (n - 1) / 2) / sigma)^2 / 2) for t = 0 … n - 1; sigma = max(min_sigma, n / width); sum 1."""
    sigma = max(min_sigma, n / width)
    return _softmax(-0.5 * ((np.arange(n, dtype=np.float64) - (n - 1) / 2) / sigma) ** 2)


def _softmax(values: FloatArray) -> FloatArray:
    # Less the largest: a narrow Gaussian over an even number of tokens would be 0 everywhere.
    powers = np.exp(values - values.max())
    return powers / powers.sum()
