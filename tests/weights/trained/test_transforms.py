"""Every transform against a loop written from METHODS 4.2 and 4.3."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.config.weights import ContrastWeights
from pipeline.weights.trained.transforms import clamp_and_scale, exp_clamp, highest_percent, ranks, select_highest

scores = st.lists(st.floats(-4, 4, width=16), max_size=15).map(np.asarray)
distinct = st.lists(st.floats(-4, 4, width=16), max_size=15, unique=True).map(np.asarray)


@settings(deadline=None)
@given(distinct, st.sampled_from([0.0, 30.0, 50.0, 99.0, 100.0]))
def test_highest_percent(values, percent):
    best = sorted(values, reverse=True)[: int(len(values) * percent / 100)]
    assert highest_percent(values, percent).tolist() == [float(value in best) for value in values]


def test_highest_percent_of_equal_values_is_all_or_none():
    """As the released code, where the last of equal values decides for all of them."""
    assert highest_percent(np.array([3.0, 1.0, 3.0, 2.0]), 50).tolist() == [1, 0, 1, 0]
    assert highest_percent(np.array([3.0, 1.0, 3.0, 2.0]), 25).tolist() == [0, 0, 0, 0]
    assert highest_percent(np.ones(4), 100).tolist() == [1] * 4
    assert highest_percent(np.ones(4), 99).tolist() == [0] * 4


@settings(deadline=None)
@given(scores, st.sampled_from([0.0, 0.3, 0.5, 0.7, 1.0]), st.booleans())
def test_select_takes_the_highest_one_after_the_other(values, share, skip_first):
    first = int(skip_first)
    left = list(values[first:])
    expected = [0.0] * len(values)
    for _ in range(int(share * len(left))):
        place = left.index(max(left))
        expected[first + place] = 1.0
        left[place] = -math.inf
    assert select_highest(values, share, skip_first).tolist() == expected


def test_select_counts():
    assert select_highest(np.arange(10.0), 0.3, False).sum() == 3
    assert select_highest(np.arange(10.0), 0.3, True).sum() == 2
    assert select_highest(np.arange(3.0), 0.3, False).sum() == 0
    assert select_highest(np.arange(7.0), 1.0, False).all()
    assert select_highest(-np.arange(7.0), 1.0, True).tolist() == [0, *[1] * 6]


@settings(deadline=None)
@given(scores, st.sampled_from([1.0, 1.5]))
def test_clamp_and_scale(values, bound):
    expected = [0.7 + (min(bound, max(-bound, value)) + bound) * 0.6 / (2 * bound) for value in values]
    np.testing.assert_allclose(clamp_and_scale(values, bound, 0.7, 1.3), expected, rtol=1e-12)


@settings(deadline=None)
@given(scores)
def test_ranks(values):
    n = len(values)
    lower = [sum((other, j) < (value, i) for j, other in enumerate(values)) for i, value in enumerate(values)]
    expected = [1.0] if n == 1 else [0.7 + rank / (n - 1) * (1.3 - 0.7) for rank in lower]
    np.testing.assert_allclose(ranks(values, 0.7, 1.3), expected, rtol=1e-12)


@settings(deadline=None)
@given(scores, st.sampled_from([-1, 1]))
def test_exp_clamp(values, sign):
    params = ContrastWeights(exp_low=-0.5, exp_high=1.5, exp_scale=2.0, exp_slope=0.7)
    expected = [2.0 * math.exp(sign * 0.7 * min(1.5, max(-0.5, value))) for value in values]
    np.testing.assert_allclose(exp_clamp(values, sign, params), expected, rtol=1e-12)


def test_exp_clamp_bounds_are_those_of_the_score_not_of_the_signed_one():
    found = exp_clamp(np.array([-9.0, 9.0]), -1, ContrastWeights())
    assert found.tolist() == pytest.approx([math.exp(0.5), math.exp(-1.5)])
