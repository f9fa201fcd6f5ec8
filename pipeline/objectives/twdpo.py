"""Token-weighted DPO (AttentionPO paper, Eq. 5) and its length-normalized form (Eq. 15)."""

from pipeline.config.objective import NoSettings
from pipeline.objectives.response import PairLosses, Pairs, log_ratios, weighted_mass, weighted_sum
from pipeline.objectives.sigmoid import preference_loss


def twdpo(pairs: Pairs, beta: float, settings: NoSettings) -> PairLosses:
    """Eq. 5: L = -log sigma(beta |y_w| sum_t a^w_t r^w_t - beta |y_l| sum_t a^l_t r^l_t), per pair.

    With a_t = 1/|y| on every token it is DPO. With raw weights it is the weighted sigmoid of TIS-DPO, cDPO and D2PO
    (METHODS 4.2, 4.4, 4.5).
    """
    chosen, rejected = (beta * weighted_sum(side, log_ratios(side)) for side in (pairs.chosen, pairs.rejected))
    return preference_loss(chosen, rejected)


def twdpo_length_normalized(pairs: Pairs, beta: float, settings: NoSettings) -> PairLosses:
    """Eq. 15: L = -log sigma(beta sum_t a^w_t r^w_t - beta sum_t a^l_t r^l_t), per pair.

    Without the factor |y|, beta must grow by about the mean response length to keep the scale of DPO's margins (the
    paper takes 2.0).
    """
    chosen, rejected = (beta * weighted_mass(side, log_ratios(side)) for side in (pairs.chosen, pairs.rejected))
    return preference_loss(chosen, rejected)
