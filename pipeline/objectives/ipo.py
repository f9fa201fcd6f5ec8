"""IPO (Azar et al. 2023): a squared loss with a target for the margin."""

from functools import partial

from pipeline.config.objective import IpoSettings
from pipeline.objectives.response import PairLosses, Pairs, log_ratios, mean_over, weighted_sum


def ipo(pairs: Pairs, beta: float, settings: IpoSettings) -> PairLosses:
    """L = (h_w - h_l - 1 / (2 tau))^2, per pair (Eq. 17); beta is tau, h the weighted mean or sum of log-ratios.

    Rewards are tau h: their margin is at its target where it is 1/2.
    """
    total = partial(mean_over, settings.divide_by) if settings.form == "mean" else weighted_sum
    chosen, rejected = (total(side, log_ratios(side)) for side in (pairs.chosen, pairs.rejected))
    return PairLosses((chosen - rejected - 1 / (2 * beta)) ** 2, beta * chosen, beta * rejected)
