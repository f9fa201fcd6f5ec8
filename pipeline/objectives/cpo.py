"""CPO (Xu et al. 2024), and TPO (Saeidi et al. 2024), which is CPO with the likelihood of a third response."""

from pipeline.config.objective import CpoSettings, TpoSettings
from pipeline.objectives.likelihood import with_nll
from pipeline.objectives.response import PairLosses, Pairs, weighted_mean, weighted_sum
from pipeline.objectives.sigmoid import preference_loss


def cpo(pairs: Pairs, beta: float, settings: CpoSettings) -> PairLosses:
    """L = -log sigma(beta (S_w - S_l)) + alpha NLL(y_w), per pair; S the weighted sum of log-probs. No reference."""
    chosen, rejected = (beta * weighted_sum(side, side.logps) for side in (pairs.chosen, pairs.rejected))
    return with_nll(preference_loss(chosen, rejected), pairs.chosen, settings.nll_weight, settings.nll)


def tpo(pairs: Pairs, beta: float, settings: TpoSettings) -> PairLosses:
    """L = -log sigma(beta (S_w - S_l)) + alpha NLL(y_gold), per pair. No reference model.

    S is the weighted sum of log-probs; in TPO-L the weighted mean, with the margin gamma under the sigmoid.
    Raises ValueError without `pairs.third`, the gold response.
    """
    if pairs.third is None:
        raise ValueError("TPO needs the gold response of each pair")
    total = weighted_mean if settings.length_normalized else weighted_sum
    chosen, rejected = (beta * total(side, side.logps) for side in (pairs.chosen, pairs.rejected))
    margin = settings.gamma if settings.length_normalized else 0.0
    return with_nll(preference_loss(chosen, rejected, margin), pairs.third, settings.nll_weight, settings.nll)
