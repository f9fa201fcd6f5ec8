"""Ranking losses with a hinge and the chosen response's likelihood: RRHF and SLiC-HF, without reference and beta."""

from torch.nn.functional import relu

from pipeline.config.objective import RrhfSettings, SlicSettings
from pipeline.objectives.likelihood import with_nll
from pipeline.objectives.response import PairLosses, Pairs, weighted_mean, weighted_sum


def rrhf(pairs: Pairs, beta: float, settings: RrhfSettings) -> PairLosses:
    """RRHF (Yuan et al. 2023) of two responses: L = max(0, A_l - A_w) + lambda NLL(y_w), per pair.

    A is the weighted mean of log-probs, the official code's `length_penalty` of 1. Rewards are A.
    """
    chosen, rejected = (weighted_mean(side, side.logps) for side in (pairs.chosen, pairs.rejected))
    ranking = PairLosses(relu(rejected - chosen), chosen, rejected)
    return with_nll(ranking, pairs.chosen, settings.nll_weight, settings.nll)


def slic(pairs: Pairs, beta: float, settings: SlicSettings) -> PairLosses:
    """SLiC-HF (Zhao et al. 2023): L = max(0, delta - S_w + S_l) + lambda NLL(y_w), per pair.

    S is the weighted sum of log-probs; the target of the NLL is the chosen response. Rewards are S. TRL's `hinge` is
    another loss: it has log-ratios under the hinge and no NLL.
    """
    chosen, rejected = (weighted_sum(side, side.logps) for side in (pairs.chosen, pairs.rejected))
    ranking = PairLosses(relu(settings.delta - chosen + rejected), chosen, rejected)
    return with_nll(ranking, pairs.chosen, settings.nll_weight, settings.nll)
