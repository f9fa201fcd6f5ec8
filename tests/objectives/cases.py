"""Every objective with settings that differ from its defaults, so that each setting plays a part."""

from typing import Any

from pipeline.config.objective import parse_settings, weights_of
from tests.objectives.samples import Kind

CASES: list[tuple[str, dict[str, Any]]] = [
    ("dpo", {}),
    ("twdpo", {}),
    ("twdpo_length_normalized", {}),
    ("ipo", {"form": "mean"}),
    ("ipo", {"form": "sum"}),
    ("ipo", {"form": "mean", "divide_by": "tokens"}),
    ("kto", {"desirable_weight": 1.3, "undesirable_weight": 0.7}),
    ("rdpo", {"alpha": 0.2}),
    ("cpo", {"nll_weight": 0.6, "nll": "mean"}),
    ("cpo", {"nll_weight": 0.6, "nll": "sum"}),
    ("orpo", {}),
    ("orpo", {"divide_by": "tokens"}),
    ("orpo", {"divide_by": "tokens", "nll": "weighted"}),
    ("simpo", {"gamma": 0.3}),
    ("simpo", {"gamma": 0.3, "divide_by": "tokens"}),
    ("rrhf", {"nll_weight": 0.4, "nll": "mean"}),
    ("rrhf", {"nll_weight": 0.4, "nll": "sum"}),
    ("slic", {"delta": 0.8, "nll_weight": 0.2, "nll": "mean"}),
    ("slic", {"delta": 0.8, "nll_weight": 0.2, "nll": "sum"}),
    ("tpo", {"nll_weight": 0.5, "nll": "mean", "gamma": 0.7}),
    ("tpo", {"nll_weight": 0.5, "nll": "sum", "length_normalized": True, "gamma": 0.7}),
    ("tdpo1", {}),
    ("tdpo2", {"alpha": 0.7}),
    ("tisdpo", {"alpha": 0.7}),
    ("tisdpo", {"alpha": 0.0}),
    ("sepo", {"scale": 1.5}),
    ("cdpo_positionwise", {}),
    ("tidpo", {"length_normalized": True, "gamma": 0.3, "margin": 0.9}),
    ("tidpo", {"length_normalized": False, "gamma": 0.3, "margin": 0.9}),
    ("tidpo", {"length_normalized": False, "gamma": 0.0}),
    ("tidpo_tdpo2", {"alpha": 0.7, "gamma": 0.3, "margin": 0.9}),
    ("tidpo_tdpo2", {"alpha": 0.7, "gamma": 0.3, "margin": 0.9, "kl_coef": 0.4}),
    ("tidpo_tdpo2", {"alpha": 0.7, "gamma": 0.0}),
]
IDS = ["-".join([name, *(f"{key}={value}" for key, value in changes.items())]) for name, changes in CASES]


def kinds(name: str, changes: dict[str, Any]) -> list[Kind]:
    """Weights that the objective takes with these settings."""
    by_kind: dict[str, list[Kind]] = {
        "none": ["ones"],
        "any": ["sum1", "raw"],
        "nonnegative": ["sum1", "mask"],
        "mask": ["mask"],
    }
    return by_kind[weights_of(name, settings_of(name, changes))]


def settings_of(name: str, changes: dict[str, Any]) -> Any:
    return parse_settings(name, changes)
