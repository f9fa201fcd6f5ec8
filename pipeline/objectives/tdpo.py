"""TDPO1 and TDPO2 (Zeng et al. 2024): DPO with the difference of the responses' sequence KLs under the sigmoid."""

from torch import Tensor
from torch.nn.functional import logsigmoid

from pipeline.config.objective import NoSettings, Tdpo2Settings
from pipeline.objectives.response import PairLosses, Pairs, Response, log_ratios, sequence_kl, weighted_sum
from pipeline.objectives.sigmoid import preference_loss


def tdpo1(pairs: Pairs, beta: float, settings: NoSettings) -> PairLosses:
    """L = -log sigma(beta (R_w - R_l) - beta (K_l - K_w)), per pair (METHODS 4.1); gradient through both K.

    R is the weighted sum of log-ratios, K the plain sum of KL(pi_ref || pi_theta) over the response's positions, as in
    TI-DPO's code, which weights the one and not the other. Rewards are beta (R + K), as in the official code.
    """
    return preference_loss(_reward(pairs.chosen, beta), _reward(pairs.rejected, beta))


def tdpo2(pairs: Pairs, beta: float, settings: Tdpo2Settings) -> PairLosses:
    """L = -log sigma(beta (R_w - R_l) - beta alpha (K_l - sg[K_w])), per pair; no gradient through K_w.

    Rewards are beta (R + K) without alpha, as in the official code: their margin is not the one under the sigmoid.
    """
    ratios = _ratio(pairs.chosen) - _ratio(pairs.rejected)
    kls = sequence_kl(pairs.rejected) - sequence_kl(pairs.chosen).detach()
    losses = -logsigmoid(beta * (ratios - settings.alpha * kls))
    return PairLosses(losses, _reward(pairs.chosen, beta).detach(), _reward(pairs.rejected, beta).detach())


def _ratio(response: Response) -> Tensor:
    return weighted_sum(response, log_ratios(response))


def _reward(response: Response, beta: float) -> Tensor:
    return beta * (_ratio(response) + sequence_kl(response))
