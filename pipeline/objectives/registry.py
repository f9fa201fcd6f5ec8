"""All objectives by the name that `train.objective` gives: a new one is a new file, a line here and one in `SPECS`."""

from collections.abc import Callable
from typing import Any

from pipeline.config.objective import find_spec
from pipeline.objectives.cdpo import cdpo_positionwise
from pipeline.objectives.cpo import cpo, tpo
from pipeline.objectives.dpo import dpo, rdpo
from pipeline.objectives.hinge import rrhf, slic
from pipeline.objectives.ipo import ipo
from pipeline.objectives.kto import kto
from pipeline.objectives.orpo import orpo
from pipeline.objectives.response import PairLosses, Pairs
from pipeline.objectives.simpo import sepo, simpo
from pipeline.objectives.tdpo import tdpo1, tdpo2
from pipeline.objectives.tidpo import tidpo, tidpo_tdpo2
from pipeline.objectives.tisdpo import tisdpo
from pipeline.objectives.twdpo import twdpo, twdpo_length_normalized

Loss = Callable[[Pairs, float, Any], PairLosses]
"""(pairs, beta, settings) -> losses and rewards of each pair; settings: as in `pipeline.config.objective.SPECS`."""

OBJECTIVES: dict[str, Loss] = {
    "dpo": dpo,
    "twdpo": twdpo,
    "twdpo_length_normalized": twdpo_length_normalized,
    "ipo": ipo,
    "kto": kto,
    "rdpo": rdpo,
    "cpo": cpo,
    "orpo": orpo,
    "simpo": simpo,
    "rrhf": rrhf,
    "slic": slic,
    "tpo": tpo,
    "tdpo1": tdpo1,
    "tdpo2": tdpo2,
    "tisdpo": tisdpo,
    "sepo": sepo,
    "cdpo_positionwise": cdpo_positionwise,
    "tidpo": tidpo,
    "tidpo_tdpo2": tidpo_tdpo2,
}


def find_objective(name: str) -> Loss:
    """Raises ConfigError that lists the known names."""
    find_spec(name)
    return OBJECTIVES[name]
