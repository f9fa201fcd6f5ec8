"""Token-weighted DPO (AttentionPO paper, Eq. 5) and its length-normalized form (Eq. 15)."""

from torch import Tensor
from torch.nn.functional import logsigmoid

from pipeline.objectives.response import PairLosses, Response, weighted_log_ratios


def twdpo(chosen: Response, rejected: Response, beta: float) -> PairLosses:
    """Eq. 5: L = -log sigma(beta |y_w| sum_t a^w_t r^w_t - beta |y_l| sum_t a^l_t r^l_t), per pair.

    With a_t = 1/|y| on every token it is DPO.
    """
    return _preference_loss(
        beta * chosen.lengths.detach() * weighted_log_ratios(chosen),
        beta * rejected.lengths.detach() * weighted_log_ratios(rejected),
    )


def twdpo_length_normalized(chosen: Response, rejected: Response, beta: float) -> PairLosses:
    """Eq. 15: L = -log sigma(beta sum_t a^w_t r^w_t - beta sum_t a^l_t r^l_t), per pair.

    Without the factor |y|, beta must grow by about the mean response length to keep the scale of DPO's margins (the
    paper takes 2.0).
    """
    return _preference_loss(beta * weighted_log_ratios(chosen), beta * weighted_log_ratios(rejected))


def _preference_loss(chosen_rewards: Tensor, rejected_rewards: Tensor) -> PairLosses:
    return PairLosses(-logsigmoid(chosen_rewards - rejected_rewards), chosen_rewards, rejected_rewards)
