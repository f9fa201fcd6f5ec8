"""KTO (Ethayarajh et al. 2024) on pairs, each split into a desirable and an undesirable example."""

import torch

from pipeline.config.objective import KtoSettings
from pipeline.objectives.response import PairLosses, Pairs, log_ratios, weighted_sum


def kto(pairs: Pairs, beta: float, settings: KtoSettings) -> PairLosses:
    """Per pair (Eq. 7), the mean of its two examples' losses:

    lambda_D (1 - sigma(beta (R_w - z))) and lambda_U (1 - sigma(beta (z - R_l))); R is the weighted sum of log-ratios.

    z is `pairs.kl_baseline`: max(0, mean of the log-ratios of mismatched responses), a constant. A mismatched response
    has no weights for its prompt: every token counts 1 in z, as in KTO, and one for each pair is drawn once, from
    outside the batch perhaps, so that a batch of one pair has a z too. Raises ValueError without.
    """
    if pairs.kl_baseline is None:
        raise ValueError("KTO needs the KL baseline of mismatched pairs")
    baseline = pairs.kl_baseline.detach()
    chosen, rejected = (weighted_sum(side, log_ratios(side)) for side in (pairs.chosen, pairs.rejected))
    # 1 - sigma(x) as sigma(-x): exact where sigma(x) rounds to 1.
    desirable = settings.desirable_weight * torch.sigmoid(-beta * (chosen - baseline))
    undesirable = settings.undesirable_weight * torch.sigmoid(-beta * (baseline - rejected))
    return PairLosses((desirable + undesirable) / 2, beta * chosen, beta * rejected)
