"""The objective of a run: its loss with its settings, and what the trainer must give it."""

from dataclasses import dataclass

from pipeline.config.base import Section
from pipeline.config.objective import Need, find_spec, parse_settings
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

    def __call__(self, pairs: Pairs) -> PairLosses:
        return self.loss(pairs, self.beta, self.settings)

    @property
    def sides(self) -> int:
        """Responses of a pair that its loss sees: 3 with an anchor or a gold response."""
        return 3 if self.needs & {"anchor", "gold"} else 2


def open_objective(params: TrainParams) -> Objective:
    """The objective that `train` names. Raises ConfigError for an unknown one, or settings that it does not take."""
    settings = parse_settings(params.objective, params.settings)
    return Objective(find_objective(params.objective), params.beta, settings, find_spec(params.objective).needs)
