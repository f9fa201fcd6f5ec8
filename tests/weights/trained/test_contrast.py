"""TIS-DPO and SePO: the sign of each role, and what happens to the end of turn."""

import math

import numpy as np
import pytest

from pipeline.config.weights import ContrastWeights
from pipeline.weights.trained.contrast import weights_of
from tests.weights.trained.examples import tokens

SCORES = [0.5, -2.0, 1.0, 3.0]


def weights(transform: str, scores: list[float] = SCORES, *, preferred: bool = True, eos: bool = True, **params):
    made = weights_of(tokens(scores, preferred=preferred, eos=eos), ContrastWeights(transform=transform, **params))
    assert made.length == 1
    assert len(made.weights) == len(scores)
    return made.weights.tolist()


CASES = {
    "origin": ([0.5, -2.0, 1.0, 3.0], [-0.5, 2.0, -1.0, -3.0]),
    "binary": ([0, 0, 1, 1], [1, 1, 0, 0]),
    "threshold": ([0.5, -1, 1, 1], [-0.5, 1, -1, -1]),
    "threshold_and_scale": ([1.1, 0.7, 1.2, 1.3], [0.9, 1.3, 0.8, 0.7]),
    "rank_based": ([0.9, 0.7, 1.1, 1.3], [1.1, 1.3, 0.9, 0.7]),
    "exp_clamp": ([math.exp(x) for x in (0.5, -0.5, 1, 1.5)], [math.exp(-x) for x in (0.5, -0.5, 1, 1.5)]),
    "select": ([0, 0, 1, 1], [1, 1, 0, 0]),
}


@pytest.mark.parametrize("transform", list(CASES))
def test_both_roles(transform: str) -> None:
    preferred, dispreferred = CASES[transform]
    params = {"top_percent": 50.0, "select_share": 0.5}
    assert weights(transform, **params) == pytest.approx(preferred)
    assert weights(transform, preferred=False, **params) == pytest.approx(dispreferred)


@pytest.mark.parametrize("transform", [*CASES, "random"])
@pytest.mark.parametrize(("eos_weight", "expected"), [("zero", 0.0), ("one", 1.0)])
def test_a_fixed_end_of_turn_is_left_out_of_the_transform(transform: str, eos_weight: str, expected: float) -> None:
    params = {"top_percent": 50.0, "select_share": 0.5, "eos_weight": eos_weight}
    found = weights(transform, **params)
    assert found[-1] == expected
    assert found[:-1] == weights(transform, SCORES[:-1], eos=False, **params)
    assert weights(transform, [4.0], **params) == [expected]


@pytest.mark.parametrize("transform", [*CASES, "random"])
def test_a_cut_response_has_no_end_of_turn_to_fix(transform: str) -> None:
    assert weights(transform, eos=False, eos_weight="zero") == weights(transform, eos=True, eos_weight="scored")


def test_rounded_scores_are_ties_that_their_place_parts() -> None:
    """As the code of TIS-DPO stores them: 0.123 and 0.118 are one score of two decimals."""
    scores = [0.123, 0.118, -1.0]
    assert weights("rank_based", scores, low=0.5, high=1.5) == [1.5, 1.0, 0.5]
    assert weights("rank_based", scores, low=0.5, high=1.5, decimals=2) == [1.0, 1.5, 0.5]
    assert weights("origin", scores, decimals=2) == [0.12, 0.12, -1.0]
    assert weights("origin", scores, decimals=0, preferred=False) == [0, 0, 1]


def test_invariants() -> None:
    """METHODS 7, no. 2 and 3: with these the objective is DPO, or SimPO."""
    assert weights("binary", eos_weight="one") == [1] * 4
    assert weights("exp_clamp", exp_slope=0.0) == [1] * 4
    assert weights("select", select_share=1.0) == [1] * 4


def test_random_ones_lie_in_the_range_and_depend_on_the_seed() -> None:
    scores = [0.0] * 500
    found = weights("random", scores)
    assert 0.7 <= min(found) < 0.71
    assert 1.29 < max(found) < 1.3
    assert found == weights("random", scores)
    assert found != weights("random", scores, seed=1)
    assert np.mean(found) == pytest.approx(1.0, abs=0.03)
