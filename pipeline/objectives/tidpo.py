"""TI-DPO (Yang et al. 2026): a token-weighted preference loss and a triplet loss, as in the paper and in its code."""

from dataclasses import replace

from pipeline.config.objective import TidpoSettings, TidpoTdpo2Settings
from pipeline.objectives.response import PairLosses, Pairs, log_ratios, sequence_kl, weighted_mass, weighted_sum
from pipeline.objectives.sigmoid import preference_loss
from pipeline.objectives.tdpo import tdpo2
from pipeline.objectives.triplet import triplet


def tidpo(pairs: Pairs, beta: float, settings: TidpoSettings) -> PairLosses:
    """L = -log sigma(beta (W_w - W_l)) + gamma triplet, per pair: the paper's Algorithm 1 (METHODS 3.1).

    W = sum_t w_t r_t, times |y| unless `length_normalized`. beta stands outside, as in the paper's Eq. 26 and 35; its
    Eq. 10 and 11 leave it out. The weights are constants, cached from the policy's start.
    """
    total = weighted_mass if settings.length_normalized else weighted_sum
    chosen, rejected = (beta * total(side, log_ratios(side)) for side in (pairs.chosen, pairs.rejected))
    return _with_triplet(preference_loss(chosen, rejected), pairs, settings)


def tidpo_tdpo2(pairs: Pairs, beta: float, settings: TidpoTdpo2Settings) -> PairLosses:
    """L = TDPO2 with weighted log-ratios and plain KLs + gamma triplet + kl_coef (K_w + K_l) / 2, per pair.

    The released code (METHODS 3.2), where kl_coef is an option that is off. Its gradient goes through both K.
    """
    outcome = tdpo2(pairs, beta, settings)
    if settings.kl_coef:
        penalty = settings.kl_coef * (sequence_kl(pairs.chosen) + sequence_kl(pairs.rejected)) / 2
        outcome = replace(outcome, losses=outcome.losses + penalty)
    return _with_triplet(outcome, pairs, settings)


def _with_triplet(outcome: PairLosses, pairs: Pairs, settings: TidpoSettings | TidpoTdpo2Settings) -> PairLosses:
    if not settings.gamma:  # there is no anchor then
        return outcome
    return replace(outcome, losses=outcome.losses + settings.gamma * triplet(pairs, settings.margin))
