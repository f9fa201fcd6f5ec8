"""Every source by its name: which part of the params it takes, which scale its weights have, what is refused."""

from typing import Any, get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.config.weights import SCORED, WeightSource, WeightsParams, may_be_negative, reads_scores, scale_of
from pipeline.errors import DataError, NonFiniteError
from pipeline.weights.trained.registry import weigh
from tests.weights.trained.examples import tokens

SOURCES = [name for name in get_args(WeightSource) if name != "judge"]
TRANSFORMS = (
    "origin", "binary", "threshold", "threshold_and_scale", "rank_based", "random", "exp_clamp", "select"
)  # fmt: skip
CHOICES: list[dict[str, Any]] = [
    *({"source": name} for name in SOURCES),
    *({"source": "contrast", "contrast": {"transform": name, "eos_weight": "one"}} for name in TRANSFORMS),
    {"source": "gradient", "gradient": {"scale": "mean1", "prior": "softmax"}},
    {"source": "critical", "critical": {"chosen": "scores"}},
]
SPARED: list[dict[str, Any]] = [
    {"source": "contrast", "contrast": {"transform": "random"}},
    {"source": "gradient", "gradient": {"saliency_share": 0.0}},
    {"source": "gradient", "gradient": {"saliency_share": 0.0, "span": "sequence", "scale": "mean1"}},
]
"""Sources of raw scores that look at none with these values."""


@pytest.mark.parametrize("choice", CHOICES, ids=str)
@settings(deadline=None, max_examples=25)
@given(st.lists(st.floats(0, 1, width=16), min_size=1, max_size=9), st.booleans(), st.booleans())
def test_the_declared_scale_holds(choice, scores, eos, preferred):
    params = WeightsParams.model_validate(choice)
    if params.source == "verbalized":
        scores = [*scores, 1.0]
    made = weigh(params, tokens(scores, eos=eos, preferred=preferred, prompt_score=1.0))
    assert made.weights.dtype == np.float64
    assert made.weights.shape == (len(scores),)
    scale = scale_of(params)
    assert made.length == (len(scores) if scale == "sum1" else 1)
    if scale == "sum1":
        assert made.weights.sum() == pytest.approx(1)
    if scale == "mean1":
        assert made.weights.sum() == pytest.approx(len(scores))
    if scale == "mask":
        assert set(made.weights) <= {0, 1}
    if not may_be_negative(params):
        assert (made.weights >= 0).all()


def test_each_source_takes_its_own_part() -> None:
    """A change of a source's part changes its weights, and no other's."""
    parts: dict[str, dict[str, Any]] = {
        "gradient": {"saliency_share": 0.1},
        "contrast": {"exp_scale": 3.0},
        "critical": {"chosen": "scores"},
        "decay": {"gamma": 0.5},
        "random": {"seed": 7},
    }
    scored = tokens([0.5, 0.25, 1.0])
    for source in SOURCES:
        plain = weigh(WeightsParams(source=source), scored).weights.tolist()
        for part, changed in parts.items():
            params = WeightsParams.model_validate({"source": source, part: changed})
            assert (weigh(params, scored).weights.tolist() != plain) == (part == source)


def test_sources_without_scores_look_at_none() -> None:
    for source in SOURCES:
        one, other = (weigh(WeightsParams(source=source), tokens(s)).weights.tolist() for s in ([0.5, 1], [1, 0.25]))
        looks = source in SCORED and source != "critical"  # which looks at the dispreferred response's alone
        assert (one != other) == looks


@pytest.mark.parametrize("choice", SPARED, ids=str)
def test_what_reads_no_scores_looks_at_none(choice: dict[str, Any]) -> None:
    """Zeros stand for the scores where there are none."""
    params = WeightsParams.model_validate(choice)
    assert not reads_scores(params)
    found, blind = (weigh(params, tokens(scores)).weights.tolist() for scores in ([0.5, 1, 0.25], [0.0] * 3))
    assert found == blind


@pytest.mark.parametrize("source", SOURCES)
def test_by_default_scores_are_read_where_there_are_some(source: Any) -> None:
    assert reads_scores(WeightsParams(source=source)) == (source in SCORED)


def test_the_judge_is_not_weighed_here() -> None:
    with pytest.raises(ValueError, match="realignment"):
        weigh(WeightsParams(), tokens([1.0]))


def test_a_torn_shard_is_named() -> None:
    with pytest.raises(DataError, match=r"pair a, chosen response: 3 trained tokens but 2 scores"):
        weigh(WeightsParams(source="contrast"), tokens([1.0, 2.0], tokens=3))


@pytest.mark.parametrize("score", [float("nan"), float("inf")])
def test_a_weight_that_is_not_finite_names_the_pair(score: float) -> None:
    params = WeightsParams.model_validate({"source": "contrast", "contrast": {"transform": "origin"}})
    with pytest.raises(NonFiniteError, match=r"pair a, chosen response: .* weights\.contrast"):
        weigh(params, tokens([1.0, score]))
