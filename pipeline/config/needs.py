"""What the chosen weight source and objective need of the stages, one small file for each that can go without work.

A stage depends on its file here and not on `weights.source`, `train.objective` or the sections of all sources: where
the need stays the same, another objective, or the params of another source, run nothing again. What a choice's values
leave without a part, such as the anchor of a triplet loss of weight 0, is not needed.
"""

from typing import Any, Literal

from pipeline.config.objective import Need, needs_of, parse_settings, third_kind
from pipeline.config.score import ScoreParams
from pipeline.config.third import ThirdParams
from pipeline.config.train import TrainParams
from pipeline.config.weights import WeightsParams, reads_scores

Name = Literal["judge", "scores", "reference", "third"]


def objective_needs(train: TrainParams) -> frozenset[Need]:
    """What the chosen objective needs with its settings. Raises ConfigError for settings that it does not take."""
    return needs_of(train.objective, parse_settings(train.objective, train.settings))


def models_of(weights: WeightsParams, score: ScoreParams) -> tuple[str, ...]:
    """The models whose scores of trained tokens a source takes, by role; none where it reads no raw scores."""
    if not reads_scores(weights):
        return ()
    if weights.source == "contrast":
        return ("start",) if score.contrast.models == "prompts" else ("positive", "negative")
    return {"gradient": ("start",), "critical": ("positive", "negative"), "verbalized": ("judge",)}[weights.source]


def needs(
    weights: WeightsParams, train: TrainParams, score: ScoreParams, third: ThirdParams, dtype: str
) -> dict[Name, dict[str, Any]]:
    """By the stage's need: what its file holds. `dtype`: of the reference."""
    wanted = objective_needs(train)
    source, models = weights.source, models_of(weights, score)
    kind = third_kind(wanted)
    return {
        "judge": {"needed": source == "judge"},
        "scores": {
            "source": source if models else None,
            "models": models,
            "params": {"dtype": score.dtype, **getattr(score, source).model_dump()} if models else None,
        },
        "reference": {"needed": "ref_logps" in wanted},
        "third": {
            "kind": kind,
            "dtype": dtype if kind in ("anchor", "kl_pairs") else None,
            "params": third.model_dump() if kind == "anchor" else None,
        },
    }
