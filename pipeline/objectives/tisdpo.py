"""TIS-DPO (Liu et al. 2025) with its penalty on the divergence of weighted sequences (METHODS 4.2)."""

from torch import Tensor

from pipeline.config.objective import TisdpoSettings
from pipeline.objectives.response import PairLosses, Pairs, Response, log_ratios, weighted_kl, weighted_sum
from pipeline.objectives.sigmoid import preference_loss


def tisdpo(pairs: Pairs, beta: float, settings: TisdpoSettings) -> PairLosses:
    """L = -log sigma(beta (W_w - W_l - alpha (K_w - K_l))), per pair; gradient through both K.

    W is the weighted sum of log-ratios, K = sum_t w_t KL(pi_theta || pi_ref), the same weighted sum of the reverse
    divergences: the released code with `token_level`, which is off in its config. With alpha 0 it is `twdpo`. Rewards
    are beta (W - alpha K), whose margin is the one under the sigmoid; the code logs beta (W - K).
    """
    chosen, rejected = (beta * _value(side, settings.alpha) for side in (pairs.chosen, pairs.rejected))
    return preference_loss(chosen, rejected)


def _value(response: Response, alpha: float) -> Tensor:
    ratio = weighted_sum(response, log_ratios(response))
    return ratio - alpha * weighted_kl(response) if alpha else ratio
