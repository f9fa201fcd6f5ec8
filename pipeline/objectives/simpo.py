"""SimPO (Meng et al. 2024), and SePO (Yang et al. 2025), which is its form on selected tokens."""

from pipeline.config.objective import SepoSettings, SimpoSettings
from pipeline.objectives.response import PairLosses, Pairs, mean_over, weighted_mean
from pipeline.objectives.sigmoid import preference_loss


def simpo(pairs: Pairs, beta: float, settings: SimpoSettings) -> PairLosses:
    """L = -log sigma(beta (A_w - A_l) - gamma), per pair; A the weighted mean of log-probs. No reference.

    The official code's `gamma_beta_ratio` g stands for gamma = g * beta.
    """
    chosen, rejected = (
        beta * mean_over(settings.divide_by, side, side.logps) for side in (pairs.chosen, pairs.rejected)
    )
    return preference_loss(chosen, rejected, settings.gamma)


def sepo(pairs: Pairs, beta: float, settings: SepoSettings) -> PairLosses:
    """L = -log sigma(scale (mean_{S_w} log pi - mean_{S_l} log pi)), per pair (METHODS 4.3). No reference, no beta.

    S are the tokens whose weight is 1; the others' is 0. With all tokens it is SimPO of beta 1 and gamma 0.
    """
    chosen, rejected = (settings.scale * weighted_mean(side, side.logps) for side in (pairs.chosen, pairs.rejected))
    return preference_loss(chosen, rejected)
