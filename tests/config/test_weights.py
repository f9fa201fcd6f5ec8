"""Sections `weights` and `score`: what is refused, what scale a choice gives."""

from typing import Any

import pytest
from pydantic import ValidationError

from pipeline.config.score import ScoreParams
from pipeline.config.weights import Scale, WeightsParams, may_be_negative, scale_of


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
