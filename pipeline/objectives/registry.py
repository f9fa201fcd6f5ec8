"""All objectives by the name that `train.objective` gives: a new one is a new file and one line here."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from pipeline.errors import ConfigError
from pipeline.objectives.response import PairLosses, Response
from pipeline.objectives.twdpo import twdpo, twdpo_length_normalized

Need = Literal["ref_logps", "ref_model", "kl_pairs", "anchor", "gold"]


@dataclass(frozen=True)
class Objective:
    """A loss per pair, and what the trainer must give it beyond the policy's log-probs and the weights."""

    loss: Callable[[Response, Response, float], PairLosses]
    """(chosen, rejected, beta) -> losses and rewards of each pair."""
    needs: frozenset[Need] = frozenset()


OBJECTIVES: dict[str, Objective] = {
    "twdpo": Objective(twdpo, needs=frozenset({"ref_logps"})),
    "twdpo_length_normalized": Objective(twdpo_length_normalized, needs=frozenset({"ref_logps"})),
}


def find_objective(name: str) -> Objective:
    """Raises ConfigError that lists the known names."""
    if name not in OBJECTIVES:
        raise ConfigError(f"train.objective: unknown {name!r}; known: {', '.join(OBJECTIVES)}")
    return OBJECTIVES[name]
