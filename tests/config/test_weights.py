"""Sections `weights` and `score`: what is refused, what scale a choice gives; the profiles of the methods."""

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from pipeline.config.load import read_params
from pipeline.config.objective import SPECS, parse_settings
from pipeline.config.score import ScoreParams
from pipeline.config.weights import SCORED, Scale, WeightsParams, may_be_negative, scale_of

PROFILES = ("ti-dpo-paper", "ti-dpo-code", "tis-dpo", "sepo", "cdpo", "d2po")


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        ({"gradient": {"span": "sequence"}}, "set scale: mean1"),
        ({"gradient": {"span": "sequence", "scale": "mean1", "prior": "softmax"}}, "set span: response"),
        ({"gradient": {"saliency_share": 1.1}}, "less than or equal to 1"),
        ({"gradient": {"prior_width": 0.0}}, "greater than 0"),
        ({"contrast": {"low": 1.4}}, r"low \(1\.4\) must not exceed high \(1\.3\)"),
        ({"contrast": {"exp_low": 2.0}}, "exp_low .* must not exceed exp_high"),
        ({"contrast": {"top_percent": 101.0}}, "less than or equal to 100"),
        # With these no token of any response has a weight.
        ({"contrast": {"top_percent": 0.0}}, "greater than 0"),
        ({"contrast": {"select_share": 0.0}}, "greater than 0"),
        ({"contrast": {"low": 0.0, "high": 0.0}}, "greater than 0"),
        ({"random": {"low": 0.0, "high": 0.0}}, "greater than 0"),
        ({"random": {"low": 2.0}}, "must not exceed high"),
        ({"decay": {"first_exponent": 2}}, "0 or 1"),
        ({"decay": {"gamma": 0.0}}, "greater than 0"),
        ({"source": "attention"}, "judge"),
        ({"judge": {}}, "Extra inputs"),
    ],
)
def test_what_is_refused(choice: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        WeightsParams.model_validate(choice)


@pytest.mark.parametrize(
    ("choice", "scale"),
    [
        ({}, "sum1"),
        ({"source": "verbalized"}, "sum1"),
        ({"source": "uniform"}, "sum1"),
        ({"source": "gradient"}, "sum1"),
        ({"source": "gradient", "gradient": {"scale": "mean1"}}, "mean1"),
        ({"source": "contrast"}, "raw"),
        ({"source": "contrast", "contrast": {"transform": "binary"}}, "raw"),
        ({"source": "contrast", "contrast": {"transform": "select"}}, "mask"),
        ({"source": "critical", "contrast": {"transform": "select"}}, "raw"),
        ({"source": "decay"}, "raw"),
        ({"source": "random"}, "raw"),
    ],
)
def test_scales(choice: dict[str, Any], scale: Scale) -> None:
    assert scale_of(WeightsParams.model_validate(choice)) == scale


def test_only_two_transforms_give_negative_weights() -> None:
    assert not may_be_negative(WeightsParams.model_validate({"contrast": {"transform": "origin"}}))
    for transform, negative in (("origin", True), ("threshold", True), ("exp_clamp", False), ("rank_based", False)):
        params = WeightsParams.model_validate({"source": "contrast", "contrast": {"transform": transform}})
        assert may_be_negative(params) == negative


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        ({"gradient": {"target": "last"}}, "last_response_token"),
        ({"gradient": {"norm": 3}}, "1 or 2"),
        ({"contrast": {"positive_prompt": "x", "negative_prompt": "x"}}, "are the same"),
        ({"contrast": {"positive_prompt": ""}}, "at least 1 character"),
        ({"critical": {"strength": -1.0}}, "greater than or equal to 0"),
    ],
)
def test_what_scoring_refuses(choice: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        ScoreParams.model_validate(choice)


def test_two_given_models_need_no_texts() -> None:
    ScoreParams.model_validate({"contrast": {"models": "given", "positive_prompt": "x", "negative_prompt": "x"}})


def profile(root: Path, name: str) -> tuple[WeightsParams, ScoreParams, dict[str, Any]]:
    content = read_params(root / "profiles" / f"{name}.yaml")
    assert set(content) <= {"model", "weights", "score", "train"}
    weights = WeightsParams.model_validate(content["weights"])
    # Whole, so that nothing of an earlier profile is left in them.
    assert set(content["weights"]) == {"source", weights.source}
    part = getattr(weights, weights.source)
    assert set(content["weights"][weights.source]) == set(type(part).model_fields)
    assert ("score" in content) == (weights.source in SCORED)
    return weights, ScoreParams.model_validate(content.get("score", {})), content["train"]


@pytest.mark.parametrize("name", PROFILES)
def test_a_profile_is_whole_and_its_weights_fit_its_objective(root: Path, name: str) -> None:
    weights, _, train = profile(root, name)
    settings = parse_settings(train["objective"], train["settings"])
    # What is left out has its default: `settings` are replaced whole.
    assert set(train["settings"]) <= set(type(settings).model_fields)
    spec = SPECS[train["objective"]]
    assert ("beta" in train) == spec.uses_beta
    assert (spec.weights == "mask") == (scale_of(weights) == "mask")
    assert spec.weights != "none"


def test_ti_dpo_has_two_profiles_that_share_little(root: Path) -> None:
    """METHODS 3.4 and 8: what paper and code have."""
    paper, paper_score, paper_train = profile(root, "ti-dpo-paper")
    code, code_score, code_train = profile(root, "ti-dpo-code")
    assert (paper.gradient.saliency_share, code.gradient.saliency_share) == (0.7, 0.2)
    assert (paper.gradient.prior_width, code.gradient.prior_width) == (4.0, 8.0)
    assert (paper.gradient.prior_min_sigma, code.gradient.prior_min_sigma) == (0.0, 1.0)
    assert (paper.gradient.span, code.gradient.span) == ("response", "sequence")
    assert (paper.gradient.scale, code.gradient.scale) == ("sum1", "mean1")
    assert (paper_score.gradient.target, code_score.gradient.target) == ("last_response_token", "after_last")
    assert (paper_train["objective"], code_train["objective"]) == ("tidpo", "tidpo_tdpo2")
    assert (paper_train["beta"], code_train["beta"]) == (0.1, 0.2)
    assert paper_train["settings"] == {"length_normalized": True, "gamma": 0.1, "margin": 0.001}
    code_settings = parse_settings(code_train["objective"], code_train["settings"]).model_dump()
    assert code_settings == {"alpha": 0.5, "gamma": 0.001, "margin": 0.001, "kl_coef": 0.0}


def test_the_other_profiles_have_the_values_of_their_papers(root: Path) -> None:
    """METHODS 4.2 to 4.5."""
    tis, tis_score, tis_train = profile(root, "tis-dpo")
    assert (tis.contrast.transform, tis.contrast.exp_low, tis.contrast.exp_high) == ("exp_clamp", -0.5, 1.5)
    assert (tis_score.contrast.models, tis_train["objective"], tis_train["beta"]) == ("prompts", "twdpo", 0.1)
    sepo, sepo_score, sepo_train = profile(root, "sepo")
    assert (sepo.contrast.transform, sepo.contrast.select_share, sepo.contrast.skip_first) == ("select", 0.3, True)
    assert (sepo_score.contrast.models, sepo_train["objective"]) == ("given", "sepo")
    cdpo, cdpo_score, cdpo_train = profile(root, "cdpo")
    assert (cdpo.critical.chosen, cdpo.critical.eos_weight, cdpo_score.critical.strength) == ("ones", "one", 1.0)
    assert (cdpo_train["objective"], cdpo_train["beta"]) == ("twdpo", 0.1)
    d2po, _, d2po_train = profile(root, "d2po")
    assert (d2po.decay.gamma, d2po.decay.first_exponent) == (0.98, 0)
    assert (d2po_train["objective"], d2po_train["beta"]) == ("twdpo", 0.1)
