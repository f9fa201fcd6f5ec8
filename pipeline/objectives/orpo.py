"""ORPO (Hong et al. 2024): likelihood of the chosen response and the odds ratio of the two."""

import torch
from torch import Tensor

from pipeline.config.objective import OrpoSettings
from pipeline.objectives.likelihood import nll
from pipeline.objectives.response import PairLosses, Pairs, mean_over
from pipeline.objectives.sigmoid import preference_loss


def orpo(pairs: Pairs, beta: float, settings: OrpoSettings) -> PairLosses:
    """L = NLL(y_w) - lambda log sigma(logodds(A_w) - logodds(A_l)), per pair; beta is lambda. No reference.

    logodds(A) = A - log(1 - e^A), A the weighted mean of log-probs. The NLL is the mean over the response's tokens, or
    -A_w where `nll` is weighted (D2PO); the official code and TRL take it over prompt and response. Rewards are
    lambda A, as in TRL.
    """
    chosen, rejected = (mean_over(settings.divide_by, side, side.logps) for side in (pairs.chosen, pairs.rejected))
    odds = preference_loss(log_odds(chosen), log_odds(rejected))
    likelihood = -chosen if settings.nll == "weighted" else nll(pairs.chosen, "mean")
    return PairLosses(likelihood + beta * odds.losses, beta * chosen, beta * rejected)


def log_odds(logps: Tensor) -> Tensor:
    """log(p / (1 - p)) of log p <= 0, any shape; finite for log-probs that round to 0, and so is its gradient.

    Probabilities within one rounding step of 1 are taken at that step: the policy can't tell them apart.
    """
    below_one = logps.clamp(max=-torch.finfo(logps.dtype).eps)
    # 1 - e^x by expm1 keeps its digits near 0. Far below, log(1 - e^x) is lost in rounding, beside an x that dwarfs it.
    return below_one - torch.log(-torch.expm1(below_one))
