"""The Bradley-Terry loss of two rewards, which most objectives share."""

from torch import Tensor
from torch.nn.functional import logsigmoid

from pipeline.objectives.response import PairLosses


def preference_loss(chosen_rewards: Tensor, rejected_rewards: Tensor, margin: float = 0.0) -> PairLosses:
    """-log sigma(chosen - rejected - margin), per pair: rewards and losses [B]."""
    return PairLosses(-logsigmoid(chosen_rewards - rejected_rewards - margin), chosen_rewards, rejected_rewards)
