"""What stages need, by source and objective; what does not fit together."""

from pathlib import Path
from typing import Any

import pytest

from pipeline.config.check import check_all
from pipeline.config.needs import needs as all_needs
from pipeline.config.score import ScoreParams
from pipeline.config.third import ThirdParams
from pipeline.errors import ConfigError
from tests.config.test_config import write


def needs(
    source: str, objective: str, score: dict[str, Any] | None = None, seed: int = 42
) -> dict[Any, dict[str, Any]]:
    return all_needs(source, objective, ScoreParams(**(score or {})), ThirdParams(seed=seed), "float32")


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
    ],
)
def test_what_objectives_need(objective: str, reference: bool, third: str | None) -> None:
    found = needs("uniform", objective)
    assert found["reference"] == {"needed": reference}
    assert found["third"]["kind"] == third


def test_another_objective_of_the_same_needs_changes_no_file() -> None:
    assert needs("uniform", "dpo") == needs("random", "ipo")


SEPO = {"weights.contrast": {"transform": "select"}, "score.contrast": {"models": "given"}}
OTHER = {"source": "folder", "name": "models/oracle"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train.objective": "dpo"}, "weights.source: judge and train.objective: dpo don't fit"),
        ({"weights.source": "uniform", "train.objective": "sepo"}, "weights.source: uniform and train.objective: sepo"),
        (
            {"weights.source": "contrast", "weights.contrast": {"transform": "origin"}, "train.objective": "simpo",
             "train.beta": 2.0},
            "weights.source: contrast and train.objective: simpo don't fit",
        ),
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
    ],
)
def test_what_fits(changes: dict[str, Any], tmp_path: Path, root: Path) -> None:
    check_all(write(tmp_path, changes, root))
