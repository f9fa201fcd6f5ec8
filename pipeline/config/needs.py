"""What the chosen weight source and objective need of the stages, one small file for each that can go without work.

A stage depends on its file here and not on `weights.source`, `train.objective` or the sections of all sources: where
the need stays the same, another objective, or the params of another source, run nothing again.
"""

from typing import Any, Literal

from pipeline.config.objective import find_spec
from pipeline.config.score import ScoreParams
from pipeline.config.third import ThirdParams

Name = Literal["judge", "scores", "reference", "third"]
THIRD = ("anchor", "gold", "kl_pairs")


def models_of(source: str, score: ScoreParams) -> tuple[str, ...]:
    """The models whose scores of trained tokens a source takes, by role; none for sources without raw scores."""
    if source == "contrast":
        return ("start",) if score.contrast.models == "prompts" else ("positive", "negative")
    return {"gradient": ("start",), "critical": ("positive", "negative"), "verbalized": ("judge",)}.get(source, ())


def third_kind(objective: str) -> str | None:
    """Which response an objective takes beside chosen and rejected."""
    wanted = find_spec(objective).needs
    return next((name for name in THIRD if name in wanted), None)


def needs(
    source: str, objective: str, score: ScoreParams, third: ThirdParams, dtype: str
) -> dict[Name, dict[str, Any]]:
    """By the stage's need: what its file holds. `dtype`: of the reference."""
    wanted = find_spec(objective).needs
    models = models_of(source, score)
    kind = third_kind(objective)
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
