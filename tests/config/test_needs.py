"""What stages need, by source and objective; what does not fit together."""

from pathlib import Path
from typing import Any

import pytest

from pipeline.config.check import check_all
from pipeline.config.needs import needs as all_needs
from pipeline.config.score import ScoreParams
from pipeline.config.third import ThirdParams
from pipeline.config.train import TrainParams
from pipeline.config.weights import WeightsParams
from pipeline.errors import ConfigError
from tests.config.test_config import write


def needs(
    source: str,
    objective: str,
    score: dict[str, Any] | None = None,
    seed: int = 42,
    settings: dict[str, Any] | None = None,
    **parts: dict[str, Any],
) -> dict[Any, dict[str, Any]]:
    """`parts`: of section `weights`."""
    return all_needs(
        WeightsParams.model_validate({"source": source, **parts}),
        TrainParams(objective=objective, settings=settings or {}),
        ScoreParams(**(score or {})),
        ThirdParams(seed=seed),
        "float32",
    )


def test_the_judge_is_needed_for_its_attention_alone() -> None:
    assert needs("judge", "twdpo")["judge"] == {"needed": True}
    for source in ("uniform", "random", "decay", "gradient", "verbalized"):
        assert needs(source, "twdpo")["judge"] == {"needed": False}


def test_sources_that_look_at_nothing_score_nothing() -> None:
    assert needs("decay", "twdpo")["scores"] == {"source": None, "models": (), "params": None}
    found = needs("gradient", "twdpo")["scores"]
    assert (found["source"], found["models"]) == ("gradient", ("start",))


def test_params_of_other_sources_change_no_need() -> None:
    changed = {"verbalized": {"max_new_tokens": 7}}
    assert needs("gradient", "twdpo", changed) == needs("gradient", "twdpo")
    assert needs("verbalized", "twdpo", changed) != needs("verbalized", "twdpo")
    assert needs("gradient", "kto", seed=1) == needs("gradient", "kto")
    assert needs("gradient", "tidpo", seed=1) != needs("gradient", "tidpo")


def test_a_contrast_reads_the_models_that_it_names() -> None:
    assert needs("contrast", "twdpo")["scores"]["models"] == ("start",)
    given = needs("contrast", "twdpo", {"contrast": {"models": "given"}})
    assert given["scores"]["models"] == ("positive", "negative")


NOTHING = {"source": None, "models": (), "params": None}


@pytest.mark.parametrize(
    ("source", "part", "reads"),
    [
        ("contrast", {"transform": "random"}, False),
        ("contrast", {"transform": "binary"}, True),
        ("gradient", {"saliency_share": 0.0}, False),
        ("gradient", {"saliency_share": 0.0, "prior": "softmax"}, True),
        ("gradient", {"saliency_share": 0.0, "prior": "none"}, True),
        ("gradient", {"saliency_share": 0.1}, True),
    ],
)
def test_scores_that_no_weight_is_made_of_are_not_needed(source: str, part: dict[str, Any], reads: bool) -> None:
    assert (needs(source, "twdpo", **{source: part})["scores"] == NOTHING) == (not reads)


@pytest.mark.parametrize("objective", ["tidpo", "tidpo_tdpo2"])
def test_a_triplet_loss_of_weight_0_needs_no_anchor(objective: str) -> None:
    found = needs("gradient", objective, settings={"gamma": 0.0})
    assert found["third"] == {"kind": None, "dtype": None, "params": None}
    assert found == needs("gradient", "twdpo")
    assert needs("gradient", objective, settings={"gamma": 0.01})["third"]["kind"] == "anchor"


@pytest.mark.parametrize(
    ("objective", "reference", "third"),
    [
        ("dpo", True, None),
        ("simpo", False, None),
        ("orpo", False, None),
        ("kto", True, "kl_pairs"),
        ("tidpo", True, "anchor"),
        ("tpo", False, "gold"),
        ("tdpo2", True, None),
        ("tisdpo", True, None),
    ],
)
def test_what_objectives_need(objective: str, reference: bool, third: str | None) -> None:
    found = needs("uniform", objective)
    assert found["reference"] == {"needed": reference}
    assert found["third"]["kind"] == third


def test_another_objective_of_the_same_needs_changes_no_file() -> None:
    assert needs("uniform", "dpo") == needs("random", "ipo")


SEPO = {"weights.contrast": {"transform": "select"}, "score.contrast": {"models": "given"}}
NEGATIVE = {"weights.source": "contrast", "weights.contrast": {"transform": "origin"}}
OTHER = {"source": "folder", "name": "models/oracle"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train.objective": "dpo"}, "weights.source: judge and train.objective: dpo don't fit"),
        ({"weights.source": "uniform", "train.objective": "sepo"}, "weights.source: uniform and train.objective: sepo"),
        (
            {"weights.source": "contrast", "weights.contrast": {"transform": "origin"}, "train.objective": "simpo",
             "train.beta": 2.0},
            "weights.source: contrast and train.objective: simpo don't fit: simpo divides by the sum of the weights",
        ),
        (
            {**NEGATIVE, "train.objective": "ipo"},
            "ipo divides by the sum of the weights unless divide_by is tokens, and weights.contrast.transform: origin",
        ),
        (
            {**NEGATIVE, "train.objective": "tpo", "train.settings": {"length_normalized": True}},
            "tpo divides by the sum of the weights where length_normalized is set, and",
        ),
        (
            {**NEGATIVE, "train.objective": "orpo", "train.settings": {"divide_by": "tokens"}},
            "orpo takes the odds of a mean log-prob, which must be below 0, and",
        ),
        ({**NEGATIVE, "train.objective": "rrhf"}, "rrhf divides by the sum of the weights, and"),
        ({"weights.source": "critical"}, "contrasts model.positive with model.negative, which are the same"),
        ({"weights.source": "contrast", **SEPO, "train.objective": "sepo"}, "which are the same"),
        ({"train.objective": "sipmo"}, "train.objective: unknown 'sipmo'; known: dpo, twdpo"),
        ({"train.settings": {"gamma": 1.0}}, "train.settings.gamma"),
        ({"weights.source": "judgement"}, "weights.source"),
        ({"realign.flip_labels": 1.5}, "realign.flip_labels"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused_by_name(
    changes: dict[str, Any], message: str, tmp_path: Path, root: Path
) -> None:
    with pytest.raises(ConfigError) as raised:
        check_all(write(tmp_path, changes, root))
    assert message in str(raised.value)


@pytest.mark.parametrize(
    "changes",
    [
        {"weights.source": "uniform", "train.objective": "dpo"},
        {"train.objective": "simpo", "train.settings": {"gamma": 0.5}},
        {"weights.source": "contrast", **SEPO, "train.objective": "sepo", "model.positive": OTHER},
        {"weights.source": "contrast"},
        {"weights.source": "uniform", "train.objective": "tpo"},
        {**NEGATIVE, "train.objective": "ipo", "train.settings": {"form": "sum"}},
        {**NEGATIVE, "train.objective": "ipo", "train.settings": {"divide_by": "tokens"}},
        {**NEGATIVE, "train.objective": "simpo", "train.settings": {"divide_by": "tokens"}},
        {**NEGATIVE, "train.objective": "tpo"},
        {**NEGATIVE, "train.objective": "tisdpo"},
        # Models of which nothing is read.
        {
            "weights.source": "contrast",
            "weights.contrast": {"transform": "random"},
            "score.contrast": {"models": "given"},
        },
    ],
)
def test_what_fits(changes: dict[str, Any], tmp_path: Path, root: Path) -> None:
    check_all(write(tmp_path, changes, root))
