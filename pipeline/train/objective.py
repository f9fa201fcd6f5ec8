"""The objective of a run: its loss with its settings, and what the trainer must give it."""

from dataclasses import dataclass

from pipeline.config.base import Section
from pipeline.config.objective import Divergence, Need, find_spec, needs_of, parse_settings
from pipeline.config.train import TrainParams
from pipeline.objectives.registry import Loss, find_objective
from pipeline.objectives.response import PairLosses, Pairs


@dataclass(frozen=True)
class Objective:
    """A loss per pair."""

    loss: Loss
    beta: float
    settings: Section
    needs: frozenset[Need]
    """With its settings."""
    kl: Divergence
    """Which KL it takes, where it needs `ref_model`."""

    def __call__(self, pairs: Pairs) -> PairLosses:
        return self.loss(pairs, self.beta, self.settings)

    @property
    def sides(self) -> int:
        """Responses of a pair that its loss sees: 3 with an anchor or a gold response."""
        return 3 if self.needs & {"anchor", "gold"} else 2


def open_objective(params: TrainParams) -> Objective:
    """The objective that `train` names. Raises ConfigError for an unknown one, or settings that it does not take."""
    name = params.objective
    settings = parse_settings(name, params.settings)
    return Objective(find_objective(name), params.beta, settings, needs_of(name, settings), find_spec(name).kl)
