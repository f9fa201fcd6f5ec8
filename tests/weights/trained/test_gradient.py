"""TI-DPO's weights against METHODS 3.1 and 3.2 written out as loops."""

import math
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.config.weights import GradientWeights
from pipeline.weights.trained.gradient import gaussian_prior, weights_of
from tests.weights.trained.examples import tokens

saliencies = st.lists(st.floats(0.0625, 4, width=16), min_size=1, max_size=12)
PAPER = GradientWeights()
CODE = GradientWeights(saliency_share=0.2, prior_width=8.0, prior_min_sigma=1.0, span="sequence", scale="mean1")


def gaussian(n: int, sigma: float) -> list[float]:
    heights = [math.exp(-0.5 * ((t - (n - 1) / 2) / sigma) ** 2) for t in range(n)]
    return [height / sum(heights) for height in heights]


def mixed(scores: Sequence[float], prior: Sequence[float], share: float) -> list[float]:
    return [share * score / sum(scores) + (1 - share) * p for score, p in zip(scores, prior, strict=True)]


@settings(deadline=None)
@given(saliencies, st.sampled_from([0.0, 0.2, 0.7, 1.0]))
def test_the_paper(scores, share):
    found = weights_of(tokens(scores), GradientWeights(saliency_share=share))
    expected = mixed(scores, gaussian(len(scores), len(scores) / 4), share)
    np.testing.assert_allclose(found.weights, expected, rtol=1e-9)
    assert found.length == len(scores)
    assert found.weights.sum() == pytest.approx(1)


@settings(deadline=None)
@given(saliencies, saliencies)
def test_the_official_code(prompt, scores):
    """Over prompt and response, mean 1 there; the response's part of it."""
    whole = [*prompt, *scores]
    n = len(whole)
    expected = [n * weight for weight in mixed(whole, gaussian(n, max(1.0, n / 8)), 0.2)]
    assert sum(expected) == pytest.approx(n)
    found = weights_of(tokens(scores, prompt_tokens=len(prompt), prompt_score=sum(prompt)), CODE)
    np.testing.assert_allclose(found.weights, expected[len(prompt) :], rtol=1e-9)
    assert found.length == 1


@settings(deadline=None)
@given(saliencies)
def test_the_softmax_prior(scores):
    n = len(scores)
    heights = [math.exp(n * score / sum(scores)) for score in scores]
    expected = mixed(scores, [height / sum(heights) for height in heights], 0.7)
    found = weights_of(tokens(scores), GradientWeights(prior="softmax"))
    np.testing.assert_allclose(found.weights, expected, rtol=1e-9)


@settings(deadline=None)
@given(saliencies)
def test_without_a_prior_it_is_saliency_alone(scores):
    """METHODS 7, no. 8, and the paper's ablation."""
    expected = np.asarray(scores) / sum(scores)
    for params in (GradientWeights(prior="none"), GradientWeights(saliency_share=1.0)):
        np.testing.assert_allclose(weights_of(tokens(scores), params).weights, expected, rtol=1e-9)


@pytest.mark.parametrize("n", [1, 2, 3, 8, 101])
@pytest.mark.parametrize("width", [4.0, 8.0, 1e6])
@pytest.mark.parametrize("min_sigma", [0.0, 1.0])
def test_the_prior_is_symmetric_and_highest_in_the_middle(n: int, width: float, min_sigma: float) -> None:
    prior = gaussian_prior(n, width, min_sigma)
    np.testing.assert_allclose(prior, prior[::-1], rtol=1e-12)
    assert prior.sum() == pytest.approx(1)
    assert prior.argmax() in (n // 2, (n - 1) // 2)
    assert (np.diff(prior[: (n + 1) // 2]) >= 0).all()


def test_no_saliency_leaves_the_prior() -> None:
    np.testing.assert_allclose(weights_of(tokens([0.0] * 6), PAPER).weights, gaussian(6, 1.5), rtol=1e-9)
    np.testing.assert_allclose(weights_of(tokens([0.0] * 6), CODE).weights, 11 * np.array(gaussian(11, 11 / 8)[5:]))
    for prior in ("none", "softmax"):
        even = weights_of(tokens([0.0] * 6), GradientWeights(prior=prior))
        assert even.weights.tolist() == pytest.approx([1 / 6] * 6)
    even = weights_of(tokens([0.0] * 6), CODE.model_copy(update={"prior": "none"}))
    assert even.weights.tolist() == pytest.approx([1.0] * 6)


def test_one_token_of_no_saliency_has_all_the_weight() -> None:
    """The last response token has none where its own prediction is the target."""
    assert weights_of(tokens([0.0]), PAPER).weights.tolist() == [1.0]


def test_mean_one_over_the_response_sums_to_its_length() -> None:
    found = weights_of(tokens([1.0, 3.0, 0.5, 0.0]), GradientWeights(scale="mean1"))
    assert found.weights.sum() == pytest.approx(4)
    assert found.length == 1
    np.testing.assert_allclose(found.weights, 4 * weights_of(tokens([1.0, 3.0, 0.5, 0.0]), PAPER).weights)


def test_scores_of_the_prompt_matter_for_its_span_alone() -> None:
    one, other = (tokens([1.0, 2.0], prompt_score=score) for score in (0.0, 3.0))
    assert weights_of(one, PAPER).weights.tolist() == weights_of(other, PAPER).weights.tolist()
    assert (weights_of(one, CODE).weights > weights_of(other, CODE).weights).all()
