"""DPO, and R-DPO with its term for length."""

from pipeline.config.objective import NoSettings, RdpoSettings
from pipeline.objectives.response import (
    PairLosses,
    Pairs,
    log_ratios,
    summed_log_ratios,
    token_counts,
    weighted_sum,
)
from pipeline.objectives.sigmoid import preference_loss


def dpo(pairs: Pairs, beta: float, settings: NoSettings) -> PairLosses:
    """L = -log sigma(beta R_w - beta R_l), R = sum_t r_t over every trained token, per pair (METHODS 5). No weights."""
    return preference_loss(beta * summed_log_ratios(pairs.chosen), beta * summed_log_ratios(pairs.rejected))


def rdpo(pairs: Pairs, beta: float, settings: RdpoSettings) -> PairLosses:
    """R-DPO (Park et al. 2024, Eq. 9): L = -log sigma(beta (R_w - R_l) + alpha (|y_w| - |y_l|)), per pair.

    R is the weighted sum of log-ratios, |y| the number of trained tokens whatever their weights. The sign is plus: the
    policy is trained on the reward less alpha |y|, so the implicit reward is beta R + alpha |y|.
    """
    chosen, rejected = (
        beta * weighted_sum(side, log_ratios(side)) + settings.alpha * token_counts(side)
        for side in (pairs.chosen, pairs.rejected)
    )
    return preference_loss(chosen, rejected)
