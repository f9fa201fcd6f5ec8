"""The figures of a step or an evaluation: means over pairs, summed in float64 over micro-batches and processes."""

import torch
from torch import Tensor

from pipeline.objectives.response import PairLosses, Pairs, Response, summed, summed_log_ratios
from pipeline.train.fsdp import all_sum

NAMES = (
    "loss",
    "rewards/chosen",
    "rewards/rejected",
    "rewards/margins",
    "rewards/accuracies",
    "plain/margins",
    "plain/accuracies",
)
"""Rewards are the objective's own, weighted ones. `plain`: the margin of the responses' unweighted log-ratio sums,
without beta, and the share of pairs where it is positive; of their log-probs where the objective takes no reference.
Ties count one half in both accuracies."""


class Figures:
    """Sums over pairs. `add` takes the pairs of one micro-batch, `means` is called by all processes together."""

    def __init__(self, device: torch.device) -> None:
        # One more entry for the number of pairs.
        self._sums = torch.zeros(len(NAMES) + 1, dtype=torch.float64, device=device)

    @torch.no_grad()
    def add(self, outcome: PairLosses, pairs: Pairs, pair_weights: Tensor) -> Tensor:
        """Add B pairs, each as often as its weight says: once, or not at all. Returns which are finite, [B] bool."""
        margins = outcome.chosen_rewards - outcome.rejected_rewards
        plain = _plain(pairs.chosen) - _plain(pairs.rejected)
        rows = (
            outcome.losses,
            outcome.chosen_rewards,
            outcome.rejected_rewards,
            margins,
            _wins(margins),
            plain,
            _wins(plain),
            torch.ones_like(margins),
        )
        values = torch.stack([row.double() for row in rows])
        self._sums += values @ pair_weights.double()
        return torch.isfinite(values).all(dim=0)

    def means(self) -> dict[str, float]:
        """Mean of each figure over all pairs of all processes; not finite where a pair's is not."""
        *sums, pairs = all_sum(self._sums).tolist()
        return {name: total / pairs for name, total in zip(NAMES, sums, strict=True)}


def _plain(response: Response) -> Tensor:
    return summed(response, response.logps) if response.ref_logps is None else summed_log_ratios(response)


def _wins(margins: Tensor) -> Tensor:
    return 0.5 * (1.0 + margins.sign())
